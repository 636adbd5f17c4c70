// Combine: in one turn a rank asks for the answers to a chunk, in the next one it is shown them,
// in the one after it adds them up. Nobody asks where one turn takes all.
#include <algorithm>
#include <array>
#include <numeric>
#include <type_traits>

#include "nccl/staged_moves.h"
#include "nccl/staged_turn.h"
#include "nccl/turn_copies.h"

namespace switchyard::nccl {
namespace {

/// Rows of a tensor, whose strides are in elements.
template <typename Tensor>
Tensor tensor_rows_from(const Tensor& tensor, int64_t first, int64_t count) {
  using Byte =
      std::conditional_t<std::is_same_v<Tensor, ConstTensorView>, const std::byte, std::byte>;
  Tensor part = tensor;
  part.rows = count;
  if (tensor.data != nullptr) {
    part.data = static_cast<Byte*>(tensor.data) + first * tensor.row_stride * size_of(tensor.dtype);
  }
  return part;
}

}  // namespace

int64_t StagedMoves::answers_a_peer(const Staging& staging, int64_t row_bytes) const {
  const int64_t left = staging.turn_bytes() - combine_head_bytes(num_slots());
  return std::max<int64_t>(0, left) / std::max(1, num_ranks() - 1) /
         std::max<int64_t>(Staging::kAlignment, aligned(row_bytes));
}

int64_t StagedMoves::answers_offset(const Staging& staging, int from, int to,
                                    int64_t row_bytes) const {
  if (is_one_turn_) {
    int64_t rows = 0;
    for (int rank = 0; rank < to; ++rank) rows += num_answers(from, rank);
    return rows * aligned(row_bytes);
  }
  return combine_head_bytes(num_slots()) +
         (to < from ? to : to - 1) * answers_a_peer(staging, row_bytes) * aligned(row_bytes);
}

void StagedMoves::combine(const AllToAllPlan::State& state, const CombineRows& rows,
                          Staging& staging, const char* phase) {
  const int64_t row_bytes = rows.expert_rows.cols * size_of(rows.expert_rows.dtype);
  begin(state);
  is_one_turn_ = count_all(state, row_bytes, staging);
  if (is_one_turn_) {
    show_answers(rows.expert_rows, staging);
    staging.end_turn(phase);
    return add_up(state, rows, {0, state.num_tokens}, staging);
  }
  staging.begin(staging.turn_bytes());
  // Of the chunks that are asked for in this turn, shown, and added up.
  std::array<Chunk, 3> chunks;
  std::array<bool, 3> works{true, false, false};
  for (;;) {
    if (works[0]) {
      ask(state, row_bytes, staging);
      chunks[0] = chunk_;
    }
    if (works[1]) show_answers(rows.expert_rows, staging);
    if (works[2]) add_up(state, rows, chunks[2], staging);
    if (!works[0] && !works[1]) return;
    staging.end_turn(phase);
    const bool has_more = works[0] && have_more(staging);
    works = {has_more, works[0], works[1]};
    chunks = {Chunk{}, chunks[0], chunks[1]};
  }
}

bool StagedMoves::count_all(const AllToAllPlan::State& state, int64_t row_bytes, Staging& staging) {
  if (state.most_tokens > max_chunk_tokens_) return false;
  std::transform(state.slot_counts.begin(), state.slot_counts.end(), counts_.begin(),
                 [](int64_t count) { return static_cast<int32_t>(count); });
  int64_t most = 0;
  for (int from = 0; from < num_ranks(); ++from) {
    int64_t rows = 0;
    for (int to = 0; to < num_ranks(); ++to) rows += num_answers(from, to);
    most = std::max(most, rows);
  }
  if (most > staging.turn_bytes() / std::max<int64_t>(1, aligned(row_bytes))) return false;
  staging.begin(most * aligned(row_bytes));
  return true;
}

int64_t StagedMoves::num_answers(int from, int to) const {
  if (from == to) return 0;
  const int32_t* const counts = counts_.data() + to * num_slots();
  return std::accumulate(counts + first_slot(from), counts + first_slot(from + 1), int64_t{0});
}

bool StagedMoves::count_asked(const AllToAllPlan::State& state, Chunk chunk, int64_t limit,
                              int32_t* counts) {
  for (int rank = 0; rank < num_ranks(); ++rank) {
    int64_t answers = 0;
    for (int64_t slot = first_slot(rank); slot < first_slot(rank + 1); ++slot) {
      const int64_t next = next_[static_cast<std::size_t>(slot)];
      const int64_t count = advance(state, slot, next, chunk.end) - next;
      counts[slot] = static_cast<int32_t>(count);
      answers += count;
    }
    if (rank != rank_ && answers > limit) return false;
  }
  return true;
}

void StagedMoves::ask(const AllToAllPlan::State& state, int64_t row_bytes, Staging& staging) {
  const int64_t limit = answers_a_peer(staging, row_bytes);
  // As many as would fit if every chunk asked the same of each rank.
  int64_t most = 1;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    if (rank != rank_)
      most = std::max(most, state.layout.sent.counts[static_cast<std::size_t>(rank)]);
  }
  chunk_.begin = chunk_.end;
  int64_t num_tokens = std::min({state.num_tokens - chunk_.begin, max_chunk_tokens_,
                                 std::max<int64_t>(1, limit * state.num_tokens / most)});
  std::byte* const turn = staging.mine();
  int32_t* const counts = numbers(turn);
  for (;; num_tokens -= (num_tokens + 7) / 8) {
    chunk_.end = chunk_.begin + num_tokens;
    if (count_asked(state, chunk_, limit, counts)) break;
  }
  for (int64_t slot = 0; slot < num_slots(); ++slot) {
    next_[static_cast<std::size_t>(slot)] += counts[slot];
  }
  write_header(turn, {num_tokens, chunk_.end < state.num_tokens ? 1 : 0});
}

void StagedMoves::show_answers(const ConstTensorView& answers, Staging& staging) {
  const int64_t row_bytes = answers.cols * size_of(answers.dtype);
  const int64_t stride = answers.row_stride * size_of(answers.dtype);
  const auto* const data = static_cast<const std::byte*>(answers.data);
  // Rows that lie side by side here and there are copied as one.
  const bool is_dense = stride == row_bytes && aligned(row_bytes) == row_bytes;
  const auto counts_of = [&](int asker) {
    const int32_t* const all =
        is_one_turn_ ? counts_.data() + asker * num_slots() : numbers(staging.last_of(asker));
    return all + first_slot(rank_);
  };
  int64_t num_rows = 0;
  for (int asker = 0; asker < num_ranks(); ++asker) {
    const int32_t* const counts = counts_of(asker);
    if (asker != rank_) num_rows = std::accumulate(counts, counts + num_local(), num_rows);
  }
  const TurnCopies copies(route_, num_rows * row_bytes);
  for (int i = 1; i < num_ranks(); ++i) {
    const int asker = (rank_ + num_ranks() - i) % num_ranks();
    const int32_t* const counts = counts_of(asker);
    std::byte* to = staging.mine() + answers_offset(staging, rank_, asker, row_bytes);
    for (int64_t local = 0; local < num_local(); ++local) {
      int64_t& row = next_row(asker, local);
      if (is_dense) {
        copies.copy(to, data + row * stride, counts[local] * row_bytes);
        to += counts[local] * row_bytes;
        row += counts[local];
        continue;
      }
      for (int32_t at = 0; at < counts[local]; ++at, to += aligned(row_bytes)) {
        copies.copy(to, data + row++ * stride, row_bytes);
      }
    }
  }
}

void StagedMoves::add_up(const AllToAllPlan::State& state, const CombineRows& rows,
                         const Chunk& chunk, const Staging& staging) {
  const int64_t num_tokens = chunk.end - chunk.begin;
  if (num_tokens == 0) return;
  const ConstTensorView& answers = rows.expert_rows;
  const int64_t row_bytes = answers.cols * size_of(answers.dtype);
  const int64_t own_stride = answers.row_stride * size_of(answers.dtype);
  clear_addresses(num_tokens);
  const int64_t first_assignment = chunk.begin * top_k_;
  for (int rank = 0; rank < num_ranks(); ++rank) {
    const bool is_own = rank == rank_;
    const std::byte* row =
        is_own ? nullptr : staging.last_of(rank) + answers_offset(staging, rank, rank_, row_bytes);
    for (int64_t slot = first_slot(rank); slot < first_slot(rank + 1); ++slot) {
      int64_t& next = next_down_[static_cast<std::size_t>(slot)];
      const int64_t end = advance(state, slot, next, chunk.end);
      if (is_own) {
        row = static_cast<const std::byte*>(answers.data) +
              next_row(rank_, slot - first_slot(rank_)) * own_stride;
        next_row(rank_, slot - first_slot(rank_)) += end - next;
      }
      for (; next < end; ++next, row += is_own ? own_stride : aligned(row_bytes)) {
        const int64_t place = state.by_slot.view().row_to_assignment[next] - first_assignment;
        // Read only; the table is for both ways.
        addresses_[static_cast<std::size_t>(place)] = const_cast<std::byte*>(row);
      }
    }
  }
  const bool has_weights = rows.gate_weights.data != nullptr || rows.gate_weights.rows != 0;
  sorter_.unpermute_from({addresses_.data(), num_tokens, top_k_}, answers.dtype,
                         has_weights ? tensor_rows_from(rows.gate_weights, chunk.begin, num_tokens)
                                     : rows.gate_weights,
                         tensor_rows_from(rows.tokens, chunk.begin, num_tokens));
}

}  // namespace switchyard::nccl

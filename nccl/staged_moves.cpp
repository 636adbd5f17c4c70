#include "nccl/staged_moves.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "nccl/turn_copies.h"

namespace switchyard::nccl {
namespace {

// Rows shown in one turn do not outgrow tables of addresses, which are made in advance.
constexpr int64_t kMaxChunkTokens = 2048;

/// At the beginning of every turn.
struct Header {
  int64_t num_tokens = 0;  ///< of a dispatch: shown in this turn
  int64_t has_more = 0;    ///< another chunk follows
};

int64_t aligned(int64_t bytes) {
  return (bytes + Staging::kAlignment - 1) / Staging::kAlignment * Staging::kAlignment;
}

// Behind the header a dispatch has where each slot's tokens end in the list of them, [num_slots],
// and the list: places in the chunk's table of [tokens, top_k] assignments. A combine has the
// number of answers that this rank asks of each slot.
template <typename Byte>
auto* numbers(Byte* turn) {
  using Number = std::conditional_t<std::is_const_v<Byte>, const int32_t, int32_t>;
  return reinterpret_cast<Number*>(turn + sizeof(Header));
}

Header header_of(const std::byte* turn) {
  Header header;
  std::memcpy(&header, turn, sizeof(header));
  return header;
}

void write_header(std::byte* turn, const Header& header) {
  std::memcpy(turn, &header, sizeof(header));
}

int64_t dispatch_head_bytes(int64_t num_slots, int64_t num_assignments) {
  return aligned(static_cast<int64_t>(sizeof(Header)) +
                 (num_slots + num_assignments) * static_cast<int64_t>(sizeof(int32_t)));
}

int64_t combine_head_bytes(int64_t num_slots) { return dispatch_head_bytes(num_slots, 0); }

template <typename View>
auto rows_from(const View& view, int64_t first, int64_t count) {
  View part = view;
  part.rows = count;
  if (view.data != nullptr) part.data = view.row(first);
  return part;
}

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

StagedMoves::StagedMoves(const ExpertPlacement& placement, const Permuter& sorter, int rank,
                         int32_t top_k, int64_t max_tokens)
    : placement_(placement),
      sorter_(sorter),
      rank_(rank),
      top_k_(top_k),
      max_chunk_tokens_(std::clamp<int64_t>(max_tokens, 1, kMaxChunkTokens)),
      next_(static_cast<std::size_t>(placement.num_slots())),
      next_down_(next_.size()),
      next_rows_(static_cast<std::size_t>(placement.num_ranks() * num_local())),
      travels_(static_cast<std::size_t>(max_chunk_tokens_)),
      addresses_(static_cast<std::size_t>(max_chunk_tokens_ * top_k)) {}

int64_t StagedMoves::chunk_tokens(const Staging& staging, int64_t row_bytes) const {
  const int64_t left = staging.turn_bytes() - dispatch_head_bytes(num_slots(), 0);
  const int64_t a_token = aligned(row_bytes) + top_k_ * static_cast<int64_t>(sizeof(int32_t));
  // The list's end may be filled up to the rows' alignment.
  return std::min(max_chunk_tokens_, std::max<int64_t>(0, left - Staging::kAlignment) / a_token);
}

int64_t StagedMoves::answers_a_peer(const Staging& staging, int64_t row_bytes) const {
  const int64_t left = staging.turn_bytes() - combine_head_bytes(num_slots());
  return std::max<int64_t>(0, left) / std::max(1, num_ranks() - 1) /
         std::max<int64_t>(Staging::kAlignment, aligned(row_bytes));
}

bool StagedMoves::fit(const Staging& staging, int64_t row_bytes) const {
  // All answers to one token.
  return chunk_tokens(staging, row_bytes) > 0 && answers_a_peer(staging, row_bytes) >= top_k_;
}

int64_t StagedMoves::answers_offset(const Staging& staging, int from, int to,
                                    int64_t row_bytes) const {
  return combine_head_bytes(num_slots()) +
         (to < from ? to : to - 1) * answers_a_peer(staging, row_bytes) * aligned(row_bytes);
}

bool StagedMoves::have_more(const Staging& staging) const {
  for (int rank = 0; rank < num_ranks(); ++rank) {
    if (header_of(staging.last_of(rank)).has_more != 0) return true;
  }
  return false;
}

void StagedMoves::begin(const AllToAllPlan::State& state) {
  chunk_ = {};
  const Permutation& sorted = state.by_slot.view();
  for (std::size_t slot = 0; slot < next_.size(); ++slot) {
    next_[slot] = sorted.expert_offsets[static_cast<int64_t>(slot)];
  }
  next_down_ = next_;
  for (std::size_t i = 0; i < next_rows_.size(); ++i) {
    next_rows_[i] = state.layout.segments[i].first_row;
  }
}

int64_t StagedMoves::advance(const AllToAllPlan::State& state, int64_t slot, int64_t from,
                             int64_t end) const {
  // Assignments of a slot are sorted by token.
  const Permutation& sorted = state.by_slot.view();
  const int64_t* const all = sorted.row_to_assignment.data;
  const int64_t last = sorted.expert_offsets[slot] + sorted.tokens_per_expert[slot];
  return std::lower_bound(all + from, all + last, end * top_k_) - all;
}

void StagedMoves::clear_addresses(int64_t num_tokens) {
  std::fill_n(addresses_.begin(), num_tokens * top_k_, nullptr);
}

MatrixView<std::byte* const> StagedMoves::addresses(int64_t num_tokens) const {
  return {addresses_.data(), num_tokens, top_k_};
}

// Dispatch.

void StagedMoves::dispatch(const AllToAllPlan::State& state, const DispatchRows& rows,
                           Staging& staging, const char* phase) {
  begin(state);
  bool shows = true;
  for (bool is_first = true;; is_first = false) {
    if (shows) show_tokens(state, rows, staging);
    for (int i = 1; !is_first && i < num_ranks(); ++i) {
      // Not all from the same rank at once.
      take_tokens((rank_ + i) % num_ranks(), rows, staging);
    }
    if (!shows) return;
    staging.end_turn(phase);
    shows = have_more(staging);
  }
}

/// Shows what is for others, and puts this rank's own rows where they belong.
void StagedMoves::show_tokens(const AllToAllPlan::State& state, const DispatchRows& rows,
                              Staging& staging) {
  const int64_t row_bytes = rows.tokens.cols;
  chunk_.begin = chunk_.end;
  chunk_.end = std::min(state.num_tokens, chunk_.begin + chunk_tokens(staging, row_bytes));
  const int64_t num_tokens = chunk_.end - chunk_.begin;
  std::byte* const turn = staging.mine();
  write_header(turn, {num_tokens, chunk_.end < state.num_tokens ? 1 : 0});
  std::fill_n(travels_.begin(), num_tokens, uint8_t{0});
  clear_addresses(num_tokens);
  int32_t* const ends = numbers(turn);
  int32_t* const list = ends + num_slots();
  int32_t listed = 0;
  const int64_t first_assignment = chunk_.begin * top_k_;
  for (int64_t slot = 0; slot < num_slots(); ++slot) {
    int64_t& next = next_[static_cast<std::size_t>(slot)];
    const int64_t end = advance(state, slot, next, chunk_.end);
    const int64_t local = slot - first_slot(rank_);
    const bool is_own = local >= 0 && local < num_local();
    for (; next < end; ++next) {
      const int64_t place = state.by_slot.view().row_to_assignment[next] - first_assignment;
      if (is_own) {
        addresses_[static_cast<std::size_t>(place)] =
            rows.expert_rows.row(next_row(rank_, local)++);
      } else {
        list[listed++] = static_cast<int32_t>(place);
        travels_[static_cast<std::size_t>(place / top_k_)] = 1;
      }
    }
    ends[slot] = listed;
  }
  std::byte* const to = turn + dispatch_head_bytes(num_slots(), num_tokens * top_k_);
  if (num_tokens == 0) return;
  copy_travelling(rows.tokens, to);
  sorter_.permute_to(rows_from(rows.tokens, chunk_.begin, num_tokens), addresses(num_tokens));
}

/// The chunk's tokens that are for others.
void StagedMoves::copy_travelling(const MatrixView<const std::byte>& tokens, std::byte* to) {
  const int64_t num_tokens = chunk_.end - chunk_.begin;
  const int64_t travelling =
      std::accumulate(travels_.begin(), travels_.begin() + num_tokens, int64_t{0});
  const TurnCopies copies(route_, travelling * tokens.cols);
  for (int64_t token = 0; token < num_tokens; ++token, to += aligned(tokens.cols)) {
    if (travels_[static_cast<std::size_t>(token)] == 0) continue;
    copies.copy(to, tokens.row(chunk_.begin + token), tokens.cols);
  }
}

void StagedMoves::take_tokens(int sender, const DispatchRows& rows, const Staging& staging) {
  const std::byte* const turn = staging.last_of(sender);
  const int64_t num_tokens = header_of(turn).num_tokens;
  const int32_t* const ends = numbers(turn);
  const int32_t* const list = ends + num_slots();
  const int64_t first = first_slot(rank_);
  const int32_t first_listed = first == 0 ? 0 : ends[first - 1];
  if (num_local() == 0 || ends[first + num_local() - 1] == first_listed) return;
  clear_addresses(num_tokens);
  int32_t listed = first_listed;
  for (int64_t local = 0; local < num_local(); ++local) {
    int64_t& row = next_row(sender, local);
    for (; listed < ends[first + local]; ++listed) {
      addresses_[static_cast<std::size_t>(list[listed])] = rows.expert_rows.row(row++);
    }
  }
  const int64_t row_bytes = rows.tokens.cols;
  const MatrixView<const std::byte> shown(
      turn + dispatch_head_bytes(num_slots(), num_tokens * top_k_), num_tokens, row_bytes,
      aligned(row_bytes));
  sorter_.permute_to(shown, addresses(num_tokens));
}

// Combine: in one turn a rank asks for the answers to a chunk, in the next one it is shown them,
// in the one after it adds them up.

void StagedMoves::combine(const AllToAllPlan::State& state, const CombineRows& rows,
                          Staging& staging, const char* phase) {
  const int64_t row_bytes = rows.expert_rows.cols * size_of(rows.expert_rows.dtype);
  begin(state);
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
    return numbers(staging.last_of(asker)) + first_slot(rank_);
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

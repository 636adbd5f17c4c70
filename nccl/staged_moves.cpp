#include "nccl/staged_moves.h"

#include <algorithm>
#include <numeric>

#include "nccl/staged_turn.h"
#include "nccl/turn_copies.h"

namespace switchyard::nccl {
namespace {

// Rows shown in one turn do not outgrow tables of addresses, which are made in advance.
constexpr int64_t kMaxChunkTokens = 2048;

template <typename View>
auto rows_from(const View& view, int64_t first, int64_t count) {
  View part = view;
  part.rows = count;
  if (view.data != nullptr) part.data = view.row(first);
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
      counts_(static_cast<std::size_t>(placement.num_ranks()) * next_.size()),
      travels_(static_cast<std::size_t>(max_chunk_tokens_)),
      addresses_(static_cast<std::size_t>(max_chunk_tokens_ * top_k)) {}

int64_t StagedMoves::chunk_tokens(const Staging& staging, int64_t row_bytes) const {
  const int64_t left = staging.turn_bytes() - dispatch_head_bytes(num_slots(), 0);
  const int64_t a_token = aligned(row_bytes) + top_k_ * static_cast<int64_t>(sizeof(int32_t));
  // The list's end may be filled up to the rows' alignment.
  return std::min(max_chunk_tokens_, std::max<int64_t>(0, left - Staging::kAlignment) / a_token);
}

bool StagedMoves::fit(const Staging& staging, int64_t row_bytes) const {
  // All answers to one token.
  return chunk_tokens(staging, row_bytes) > 0 && answers_a_peer(staging, row_bytes) >= top_k_;
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

void StagedMoves::dispatch(const AllToAllPlan::State& state, const DispatchRows& rows,
                           Staging& staging, const char* phase) {
  begin(state);
  const int64_t row_bytes = rows.tokens.cols;
  const int64_t most = std::min(state.most_tokens, chunk_tokens(staging, row_bytes));
  staging.begin(dispatch_head_bytes(num_slots(), most * top_k_) + most * aligned(row_bytes));
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

}  // namespace switchyard::nccl

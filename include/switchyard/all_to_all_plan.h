// What one rank sends and gets in one exchange.
#pragma once

#include <cstdint>
#include <memory>

#include "switchyard/permutation.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// Rows between this rank and every other, on the host; offsets are their running sums.
struct AllToAllCounts {
  VectorView<const int64_t> send_counts;   ///< [num_ranks]
  VectorView<const int64_t> send_offsets;  ///< [num_ranks + 1]
  VectorView<const int64_t> recv_counts;   ///< [num_ranks]
  VectorView<const int64_t> recv_offsets;  ///< [num_ranks + 1]

  /// The way back.
  [[nodiscard]] AllToAllCounts inverse() const {
    return {recv_counts, recv_offsets, send_counts, send_offsets};
  }
};

/// Whether a plan can be carried out.
struct PlanStatus {
  bool is_ready = false;
  int32_t rank = -1;        ///< one whose expert rows exceed max_expert_rows; -1: none
  int64_t needed_rows = 0;  ///< what that rank needs
};

/// Made by ExpertExchange::make_plan(), filled by ExpertExchange::plan(). Every rank holds the
/// complete counts, so that nothing has to be asked again.
class AllToAllPlan {
 public:
  ~AllToAllPlan();
  AllToAllPlan(AllToAllPlan&&) noexcept;
  AllToAllPlan& operator=(AllToAllPlan&&) noexcept;

  /// Of the batch that was planned, on this rank.
  [[nodiscard]] int64_t num_tokens() const;
  /// Ready, or which rank would overflow; the same on every rank.
  [[nodiscard]] PlanStatus status() const;

  /// Rows that travel from tokens to experts: one an assignment, or one for each rank that a token
  /// goes to where the exchange deduplicates.
  [[nodiscard]] AllToAllCounts dispatch_counts() const;
  /// Rows that travel back: one an assignment. The inverse of the dispatch without deduplication.
  [[nodiscard]] AllToAllCounts combine_counts() const;
  /// [num_ranks, num_slots] assignments that each rank has for each slot, on the host.
  [[nodiscard]] MatrixView<const int64_t> slot_counts() const;

  // The layout of this rank's expert rows: by local slot, then by rank, token and slot of the
  // token's choice.

  /// [local slots] rows of each expert, in memory that host and backend share: page-locked where
  /// the backend is kCuda.
  [[nodiscard]] VectorView<const int64_t> tokens_per_expert() const;
  /// [local slots + 1] first row of each expert, a multiple of block_rows; likewise shared.
  [[nodiscard]] VectorView<const int64_t> expert_offsets() const;
  /// Rows in all, alignment padding included.
  [[nodiscard]] int64_t num_expert_rows() const;
  /// This rank's own assignments: kept, and dropped by the capacity.
  [[nodiscard]] const PermutationTotals& totals() const;

  class State;
  [[nodiscard]] State& state() { return *state_; }
  [[nodiscard]] const State& state() const { return *state_; }
  explicit AllToAllPlan(std::unique_ptr<State> state);

 private:
  std::unique_ptr<State> state_;
};

}  // namespace switchyard

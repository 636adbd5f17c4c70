// Where rows go, worked out from the complete counts.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/all_to_all_plan.h"
#include "switchyard/communicator.h"
#include "switchyard/expert_placement.h"

namespace switchyard::nccl {

/// Counts and their running sums.
struct CountedRows {
  std::vector<int64_t> counts;
  std::vector<int64_t> offsets;

  explicit CountedRows(int num_ranks)
      : counts(static_cast<std::size_t>(num_ranks)),
        offsets(static_cast<std::size_t>(num_ranks) + 1) {}
  void add_up();
  [[nodiscard]] int64_t total() const { return offsets.back(); }
};

inline AllToAllCounts counts_of(const CountedRows& sent, const CountedRows& received) {
  const auto view = [](const std::vector<int64_t>& values) {
    return VectorView<const int64_t>(values.data(), static_cast<int64_t>(values.size()));
  };
  return {view(sent.counts), view(sent.offsets), view(received.counts), view(received.offsets)};
}

/// One rank's view of an exchange. A destination's expert rows are laid out by its slots, each of
/// which starts at a multiple of block_rows and holds the rows of rank 0, then of rank 1, …
class ExchangeLayout {
 public:
  ExchangeLayout(const ExpertPlacement& placement, int rank, int32_t block_rows);

  /// @param slot_counts  [num_ranks, num_slots] assignments.
  void lay_out(MatrixView<const int64_t> slot_counts);

  [[nodiscard]] int32_t num_local_slots() const { return num_local_; }
  [[nodiscard]] int32_t first_local_slot() const { return first_local_; }

  CountedRows sent;      ///< assignments, by rank
  CountedRows received;  ///< the same
  /// [num_slots] row of this rank's first assignment among the expert rows of the slot's rank.
  std::vector<int64_t> peer_rows;
  /// [num_ranks * local slots] expert rows of each sender's rows, in the order in which they come.
  std::vector<RowSegment> segments;
  std::vector<int64_t> segment_offsets;    ///< [num_ranks + 1]
  std::vector<int64_t> tokens_per_expert;  ///< [local slots]
  std::vector<int64_t> expert_offsets;     ///< [local slots + 1]
  std::vector<int64_t> rank_rows;          ///< [num_ranks] expert rows of each rank, with padding

 private:
  void lay_out_segments(MatrixView<const int64_t> slot_counts);

  const ExpertPlacement& placement_;
  int rank_;
  int32_t block_rows_;
  int32_t first_local_;
  int32_t num_local_;
  std::vector<int64_t> totals_;  // [num_slots]
};

}  // namespace switchyard::nccl

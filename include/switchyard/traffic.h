// How many rows ranks send each other, and what that means for balance and bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "switchyard/expert_placement.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// [num_ranks, num_ranks] rows of traffic, from row to column.
class TrafficMatrix {
 public:
  TrafficMatrix() = default;
  /// All zero. @throws InvalidArgument  for a number below 0.
  explicit TrafficMatrix(int32_t num_ranks);

  [[nodiscard]] int32_t num_ranks() const { return num_ranks_; }
  [[nodiscard]] int64_t& at(int32_t source, int32_t destination) {
    return rows_[index(source, destination)];
  }
  [[nodiscard]] int64_t at(int32_t source, int32_t destination) const {
    return rows_[index(source, destination)];
  }
  /// The way back.
  [[nodiscard]] TrafficMatrix transposed() const;

 private:
  [[nodiscard]] std::size_t index(int32_t source, int32_t destination) const {
    return static_cast<std::size_t>(source) * static_cast<std::size_t>(num_ranks_) +
           static_cast<std::size_t>(destination);
  }

  int32_t num_ranks_ = 0;
  std::vector<int64_t> rows_;
};

/// The traffic of a plan without deduplication.
///
/// @param slot_counts  [num_ranks, num_slots] assignments of each rank for each slot, as
///                     AllToAllPlan::slot_counts() has them.
/// @throws InvalidArgument  for another shape, naming both numbers.
TrafficMatrix traffic_of(const ExpertPlacement& placement, MatrixView<const int64_t> slot_counts);

/// Rows that leave their rank, and rows that each rank works on. An imbalance is max / mean over
/// the ranks, 1 where there is nothing.
struct TrafficSummary {
  int64_t rows_moved = 0;          ///< off the diagonal
  int64_t max_rows_sent = 0;       ///< by one rank, off the diagonal
  int64_t max_rows_received = 0;   ///< by one rank, off the diagonal
  double send_imbalance = 1.0;     ///< of the rows sent
  double recv_imbalance = 1.0;     ///< of the rows received
  double compute_imbalance = 1.0;  ///< of the rows that end on a rank, its own among them
};
TrafficSummary summarize_traffic(const TrafficMatrix& traffic);

/// Bytes that leave their rank in one direction; the way back is as long, by its own row size.
struct TrafficVolume {
  int64_t total_bytes = 0;
  int64_t max_bytes_sent = 0;        ///< by one rank
  int64_t max_bytes_received = 0;    ///< by one rank
  double mean_bytes_per_rank = 0.0;  ///< sent, and received

  /// The busier direction of the busiest rank: what the exchange waits for.
  [[nodiscard]] int64_t max_bytes_any_rank() const {
    return max_bytes_sent > max_bytes_received ? max_bytes_sent : max_bytes_received;
  }
  /// mean / max sent, in [0, 1]; 0 without traffic.
  [[nodiscard]] double send_utilization() const {
    return max_bytes_sent == 0 ? 0.0 : mean_bytes_per_rank / static_cast<double>(max_bytes_sent);
  }
};
/// @throws InvalidArgument  for a negative row size.
TrafficVolume traffic_volume(const TrafficMatrix& traffic, int64_t row_bytes);

}  // namespace switchyard

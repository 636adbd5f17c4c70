#include "switchyard/traffic.h"

#include <algorithm>
#include <numeric>

#include "nccl/refuse.h"

namespace switchyard {
namespace {

struct RankRows {
  std::vector<int64_t> sent;
  std::vector<int64_t> received;
  std::vector<int64_t> worked_on;
};

RankRows rows_by_rank(const TrafficMatrix& traffic) {
  const auto num_ranks = static_cast<std::size_t>(traffic.num_ranks());
  RankRows rows{std::vector<int64_t>(num_ranks), std::vector<int64_t>(num_ranks),
                std::vector<int64_t>(num_ranks)};
  for (std::size_t source = 0; source < num_ranks; ++source) {
    for (std::size_t destination = 0; destination < num_ranks; ++destination) {
      const int64_t count =
          traffic.at(static_cast<int32_t>(source), static_cast<int32_t>(destination));
      rows.worked_on[destination] += count;
      if (source == destination) continue;
      rows.sent[source] += count;
      rows.received[destination] += count;
    }
  }
  return rows;
}

int64_t largest(const std::vector<int64_t>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

int64_t sum(const std::vector<int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), int64_t{0});
}

double max_over_mean(const std::vector<int64_t>& values) {
  const int64_t total = sum(values);
  if (total == 0) return 1.0;
  return static_cast<double>(largest(values)) * static_cast<double>(values.size()) /
         static_cast<double>(total);
}

}  // namespace

TrafficMatrix::TrafficMatrix(int32_t num_ranks) : num_ranks_(num_ranks) {
  if (num_ranks < 0) nccl::refuse("num_ranks is ", num_ranks, ", must be 0 or more");
  rows_.resize(static_cast<std::size_t>(num_ranks) * static_cast<std::size_t>(num_ranks));
}

TrafficMatrix TrafficMatrix::transposed() const {
  TrafficMatrix back(num_ranks_);
  for (int32_t source = 0; source < num_ranks_; ++source) {
    for (int32_t destination = 0; destination < num_ranks_; ++destination) {
      back.at(destination, source) = at(source, destination);
    }
  }
  return back;
}

TrafficMatrix traffic_of(const ExpertPlacement& placement, MatrixView<const int64_t> slot_counts) {
  if (slot_counts.rows != placement.num_ranks()) {
    nccl::refuse("slot_counts has ", slot_counts.rows, " rows, must have ", placement.num_ranks());
  }
  if (slot_counts.cols != placement.num_slots()) {
    nccl::refuse("slot_counts has ", slot_counts.cols, " columns, must have ",
                 placement.num_slots());
  }
  TrafficMatrix traffic(placement.num_ranks());
  for (int32_t source = 0; source < placement.num_ranks(); ++source) {
    for (int32_t slot = 0; slot < placement.num_slots(); ++slot) {
      traffic.at(source, placement.rank_of_slot(slot)) += slot_counts.row(source)[slot];
    }
  }
  return traffic;
}

TrafficSummary summarize_traffic(const TrafficMatrix& traffic) {
  const RankRows rows = rows_by_rank(traffic);
  TrafficSummary summary;
  summary.rows_moved = sum(rows.sent);
  summary.max_rows_sent = largest(rows.sent);
  summary.max_rows_received = largest(rows.received);
  summary.send_imbalance = max_over_mean(rows.sent);
  summary.recv_imbalance = max_over_mean(rows.received);
  summary.compute_imbalance = max_over_mean(rows.worked_on);
  return summary;
}

TrafficVolume traffic_volume(const TrafficMatrix& traffic, int64_t row_bytes) {
  if (row_bytes < 0) nccl::refuse("row_bytes is ", row_bytes, ", must be 0 or more");
  const RankRows rows = rows_by_rank(traffic);
  TrafficVolume volume;
  volume.total_bytes = sum(rows.sent) * row_bytes;
  volume.max_bytes_sent = largest(rows.sent) * row_bytes;
  volume.max_bytes_received = largest(rows.received) * row_bytes;
  if (traffic.num_ranks() > 0) {
    volume.mean_bytes_per_rank = static_cast<double>(volume.total_bytes) / traffic.num_ranks();
  }
  return volume;
}

}  // namespace switchyard

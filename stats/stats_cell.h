// What one cell of RoutingStats holds, and how it is added to a snapshot.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "stats/record_cells.h"
#include "switchyard/buffer.h"
#include "switchyard/latency.h"
#include "switchyard/routing_snapshot.h"

namespace switchyard::stats {

/// The latest numbers, each with its place in the order of all cells' numbers.
template <typename T>
class RecentRing {
 public:
  using Entry = std::pair<int64_t, T>;  ///< ticket and number

  explicit RecentRing(int64_t size) : tickets_(size), numbers_(size) {}

  template <typename Access>
  void add(Access, int64_t ticket, T number) {
    const int64_t place = Access::fetch_add(count_, 1) % tickets_.size();
    Access::store(tickets_[place], ticket);
    Access::store(numbers_[place], number);
  }
  void append_to(std::vector<Entry>& entries) const {
    const int64_t size = count_ < tickets_.size() ? count_ : tickets_.size();
    for (int64_t i = 0; i < size; ++i) entries.emplace_back(tickets_[i], numbers_[i]);
  }
  void clear() { count_ = 0; }

 private:
  int64_t count_ = 0;
  Buffer<int64_t> tickets_;
  Buffer<T> numbers_;
};

struct LatencyCell {
  int64_t sum_ns = 0;
  int64_t min_ns = INT64_MAX;
  int64_t max_ns = 0;
  Buffer<int64_t> groups{LatencyBuckets::kGroups};  ///< sums of the histogram's groups
  Buffer<int64_t> histogram{LatencyBuckets::kCount};
  RecentRing<int64_t> recent{LatencySummary::kRecentLatencies};

  template <typename Access>
  void add(Access access, int64_t ticket, int64_t nanoseconds) {
    const int bucket = LatencyBuckets::of(nanoseconds);
    Access::add(sum_ns, nanoseconds);
    Access::lower(min_ns, nanoseconds);
    Access::raise(max_ns, nanoseconds);
    Access::add(groups[bucket / LatencyBuckets::kPerGroup], 1);
    Access::add(histogram[bucket], 1);
    recent.add(access, ticket, nanoseconds);
  }
  void clear();
};

inline constexpr std::size_t kNumPhases = 3;

/// What no layer has to itself.
struct EventSums {
  int64_t timed_tokens = 0;
  int64_t timed_routings = 0;
  int64_t timed_ns = 0;
  int64_t dispatch_bytes = 0;
  int64_t rebalances = 0;
  int64_t moved_slots = 0;
};

struct StatsCell {
  StatsCell(int32_t num_layers, int32_t experts);

  [[nodiscard]] int64_t* counts_of(int32_t layer) {
    return counts.data() + int64_t{layer} * num_experts;
  }
  void clear();

  int32_t num_experts;
  std::vector<LayerSums> layers;
  Buffer<int64_t> counts;  ///< [num_layers, num_experts]
  std::vector<RecentRing<double>> load_variances;
  std::array<LatencyCell, kNumPhases> latencies;
  EventSums events;
};

/// Puts the numbers of all cells together.
class LatencyCollector {
 public:
  LatencyCollector() : histogram_(LatencyBuckets::kCount) {}
  void add(const LatencyCell& cell);
  [[nodiscard]] LatencySummary finish();

 private:
  int64_t sum_ns_ = 0;
  int64_t min_ns_ = INT64_MAX;
  int64_t max_ns_ = 0;
  std::vector<int64_t> histogram_;
  std::vector<RecentRing<int64_t>::Entry> recent_;
};

class SnapshotCollector {
 public:
  SnapshotCollector(int32_t num_layers, int32_t num_experts);
  void add(const StatsCell& cell);
  [[nodiscard]] RoutingSnapshot finish();

 private:
  RoutingSnapshot snapshot_;
  std::vector<std::vector<RecentRing<double>::Entry>> load_variances_;
  std::array<LatencyCollector, kNumPhases> latencies_;
};

}  // namespace switchyard::stats

#include "stats/stats_cell.h"

#include <algorithm>

#include "stats/wrapping_sum.h"

namespace switchyard::stats {
namespace {

/// The numbers of the `size` highest tickets, in their order.
template <typename T>
std::vector<T> latest(std::vector<std::pair<int64_t, T>>& entries, int64_t size) {
  const auto by_ticket = [](const auto& a, const auto& b) { return a.first < b.first; };
  std::sort(entries.begin(), entries.end(), by_ticket);
  const auto count = static_cast<int64_t>(entries.size());
  std::vector<T> numbers;
  for (int64_t i = std::max<int64_t>(count - size, 0); i < count; ++i) {
    numbers.push_back(entries[static_cast<std::size_t>(i)].second);
  }
  return numbers;
}

}  // namespace

void LatencyCell::clear() {
  sum_ns = 0;
  min_ns = INT64_MAX;
  max_ns = 0;
  std::fill(groups.begin(), groups.end(), 0);
  std::fill(histogram.begin(), histogram.end(), 0);
  recent.clear();
}

StatsCell::StatsCell(int32_t num_layers, int32_t experts)
    : num_experts(experts),
      layers(static_cast<std::size_t>(num_layers)),
      counts(int64_t{num_layers} * experts) {
  load_variances.reserve(layers.size());
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    load_variances.emplace_back(kVarianceHistory);
  }
}

void StatsCell::clear() {
  std::fill(layers.begin(), layers.end(), LayerSums{});
  std::fill(counts.begin(), counts.end(), 0);
  for (RecentRing<double>& ring : load_variances) ring.clear();
  for (LatencyCell& latency : latencies) latency.clear();
  events = {};
}

void LatencyCollector::add(const LatencyCell& cell) {
  add_wrapping(sum_ns_, cell.sum_ns);
  min_ns_ = std::min(min_ns_, cell.min_ns);
  max_ns_ = std::max(max_ns_, cell.max_ns);
  add_wrapping(histogram_, cell.histogram.data());
  cell.recent.append_to(recent_);
}

LatencySummary LatencyCollector::finish() {
  return LatencySummary::from(std::move(histogram_), sum_ns_, min_ns_, max_ns_,
                              latest(recent_, LatencySummary::kRecentLatencies));
}

SnapshotCollector::SnapshotCollector(int32_t num_layers, int32_t num_experts)
    : load_variances_(static_cast<std::size_t>(num_layers)) {
  snapshot_.num_experts = num_experts;
  snapshot_.layers.resize(load_variances_.size());
  for (LayerStats& layer : snapshot_.layers) {
    layer.tokens_per_expert.resize(static_cast<std::size_t>(num_experts));
  }
}

void SnapshotCollector::add(const StatsCell& cell) {
  for (std::size_t i = 0; i < snapshot_.layers.size(); ++i) {
    LayerStats& layer = snapshot_.layers[i];
    layer.sums.add(cell.layers[i]);
    add_wrapping(layer.tokens_per_expert,
                 cell.counts.data() + static_cast<int64_t>(i) * cell.num_experts);
    cell.load_variances[i].append_to(load_variances_[i]);
  }
  for (std::size_t phase = 0; phase < kNumPhases; ++phase) {
    latencies_[phase].add(cell.latencies[phase]);
  }
  add_wrapping(snapshot_.timed_tokens, cell.events.timed_tokens);
  add_wrapping(snapshot_.timed_routings, cell.events.timed_routings);
  add_wrapping(snapshot_.timed_ns, cell.events.timed_ns);
  add_wrapping(snapshot_.dispatch_bytes, cell.events.dispatch_bytes);
  add_wrapping(snapshot_.rebalances, cell.events.rebalances);
  add_wrapping(snapshot_.moved_slots, cell.events.moved_slots);
}

RoutingSnapshot SnapshotCollector::finish() {
  for (std::size_t i = 0; i < snapshot_.layers.size(); ++i) {
    snapshot_.layers[i].load_variances = latest(load_variances_[i], kVarianceHistory);
  }
  snapshot_.routing_latency = latencies_[0].finish();
  snapshot_.plan_latency = latencies_[1].finish();
  snapshot_.exchange_latency = latencies_[2].finish();
  return std::move(snapshot_);
}

}  // namespace switchyard::stats

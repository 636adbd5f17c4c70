#include "stats/recent_balancedness.h"

#include <algorithm>
#include <cstddef>

#include "stats/percentile_position.h"

namespace switchyard::stats {
namespace {

/// `counts` less what they were; as they are where one of them has fallen, since then all of them
/// began anew.
std::vector<int64_t> since(const std::vector<int64_t>& counts,
                           const std::vector<std::vector<int64_t>>& before, std::size_t layer) {
  if (before.empty()) return counts;
  std::vector<int64_t> grown(counts.size());
  for (std::size_t expert = 0; expert < counts.size(); ++expert) {
    grown[expert] = counts[expert] - before[layer][expert];
    if (grown[expert] < 0) return counts;
  }
  return grown;
}

double percentile(const std::vector<double>& ascending, double percent) {
  const PercentilePosition position(static_cast<int64_t>(ascending.size()), percent);
  return position.between(ascending[static_cast<std::size_t>(position.below)],
                          ascending[static_cast<std::size_t>(position.above)]);
}

}  // namespace

LayerBalancedness RecentBalancedness::update(const RoutingSnapshot& snapshot, int64_t now_ns) {
  Counts counts;
  counts.reserve(snapshot.layers.size());
  for (const LayerStats& layer : snapshot.layers) counts.push_back(layer.tokens_per_expert);

  LayerBalancedness result;
  std::vector<double> loaded;
  for (std::size_t layer = 0; layer < counts.size(); ++layer) {
    const std::vector<int64_t> grown = since(counts[layer], older_, layer);
    const LoadSummary load = summarize_load({grown.data(), static_cast<int64_t>(grown.size())});
    result.layers.push_back(load.balancedness);
    if (load.total == 0) continue;
    if (loaded.empty() || load.balancedness < result.min) {
      result.min = load.balancedness;
      result.worst_layer = static_cast<int64_t>(layer);
    }
    loaded.push_back(load.balancedness);
  }
  if (!loaded.empty()) {
    double sum = 0.0;
    for (const double balancedness : loaded) sum += balancedness;
    result.mean = sum / static_cast<double>(loaded.size());
    std::sort(loaded.begin(), loaded.end());
    result.p50 = percentile(loaded, 50.0);
    result.p90 = percentile(loaded, 90.0);
  }

  if (!has_started_ || now_ns - newer_ns_ >= window_ns_) {
    older_ = std::move(newer_);
    newer_ = std::move(counts);
    newer_ns_ = now_ns;
    has_started_ = true;
  }
  return result;
}

}  // namespace switchyard::stats

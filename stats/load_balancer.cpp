#include "switchyard/load_balancer.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "stats/refuse.h"

namespace switchyard {

using stats::check_range;
using stats::refuse;

namespace {

constexpr int64_t kMostLayers = 1 << 20;
/// A suggestion must be better by more than rounding.
constexpr double kLeastGain = 1e-9;

double cost_of(std::span<const double> us_per_layer, std::span<const int64_t> layers,
               BalanceObjective objective) {
  double cost = 0.0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const double time = us_per_layer[i] * static_cast<double>(layers[i]);
    cost = objective == BalanceObjective::kThroughput ? std::max(cost, time) : cost + time;
  }
  return cost;
}

std::string two_decimals(double value) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.2f", value);
  return text;
}

std::string shortest(double value) {
  char text[64];
  return {text, std::to_chars(text, text + sizeof(text), value).ptr};
}

}  // namespace

ShardMetrics::ShardMetrics(int64_t num_layers, int64_t window)
    : num_layers_(num_layers), window_(window) {
  check_range("num_layers", num_layers, 0, kMostLayers);
  check_range("window", window, 1, std::numeric_limits<int32_t>::max());
}

void ShardMetrics::record(double latency_us) {
  if (!std::isfinite(latency_us) || latency_us < 0.0) {
    refuse("latency_us is ", latency_us, ", must be finite and 0 or more");
  }
  samples_.push_back(latency_us);
  if (num_samples() > window_) samples_.pop_front();
  ++num_forwards_;
}

double ShardMetrics::total_us() const {
  return std::accumulate(samples_.begin(), samples_.end(), 0.0);
}

double ShardMetrics::min_us() const {
  if (samples_.empty()) return std::numeric_limits<double>::infinity();
  return *std::min_element(samples_.begin(), samples_.end());
}

double ShardMetrics::max_us() const {
  return samples_.empty() ? 0.0 : *std::max_element(samples_.begin(), samples_.end());
}

double ShardMetrics::last_us() const { return samples_.empty() ? 0.0 : samples_.back(); }

double ShardMetrics::mean_us() const {
  return samples_.empty() ? 0.0 : total_us() / static_cast<double>(samples_.size());
}

double ShardMetrics::mean_us_per_layer() const {
  return num_layers_ == 0 ? 0.0 : mean_us() / static_cast<double>(num_layers_);
}

void validate(const LoadBalancerConfig& config) {
  constexpr int64_t kMany = std::numeric_limits<int32_t>::max();
  check_range("min_samples", config.min_samples, 0, kMany);
  check_range("window", config.window, 1, kMany);
  if (config.window < config.min_samples) {
    refuse("window is ", config.window, ", must hold min_samples, ", config.min_samples);
  }
  if (!std::isfinite(config.imbalance_threshold) || config.imbalance_threshold < 1.0) {
    refuse("imbalance_threshold is ", config.imbalance_threshold, ", must be finite and 1 or more");
  }
  if (config.evaluation_interval < std::chrono::nanoseconds(0)) {
    refuse("evaluation_interval is ", config.evaluation_interval.count(), " ns, must be 0 or more");
  }
  check_range("min_layers_per_shard", config.min_layers_per_shard, 0, kMostLayers);
  if (!config.clock) refuse("clock is empty");
}

LayerSplit split_layers(std::span<const double> us_per_layer, int64_t num_layers,
                        int64_t min_layers_per_shard, BalanceObjective objective) {
  const auto num_shards = static_cast<int64_t>(us_per_layer.size());
  if (num_shards == 0) refuse("us_per_layer is empty");
  for (std::size_t i = 0; i < us_per_layer.size(); ++i) {
    if (std::isfinite(us_per_layer[i]) && us_per_layer[i] > 0.0) continue;
    refuse("us_per_layer[", i, "] is ", us_per_layer[i], ", must be finite and above 0");
  }
  check_range("min_layers_per_shard", min_layers_per_shard, 0, kMostLayers);
  check_range("num_layers", num_layers, num_shards * min_layers_per_shard, kMostLayers);
  LayerSplit split{std::vector<int64_t>(us_per_layer.size(), min_layers_per_shard)};
  const int64_t left = num_layers - num_shards * min_layers_per_shard;
  if (objective == BalanceObjective::kLatency) {
    const auto fastest = std::min_element(us_per_layer.begin(), us_per_layer.end());
    split.layers[static_cast<std::size_t>(fastest - us_per_layer.begin())] += left;
  } else {
    // Layer by layer to where it ends first. No split has a smaller bottleneck: one that does
    // would have to give the shard of the last bottleneck fewer layers and another shard more than
    // it has here, and that shard's next layer would not have ended earlier.
    using Next = std::pair<double, std::size_t>;
    std::priority_queue<Next, std::vector<Next>, std::greater<>> next;
    const auto end_of_next = [&](std::size_t i) {
      return us_per_layer[i] * static_cast<double>(split.layers[i] + 1);
    };
    for (std::size_t i = 0; i < us_per_layer.size(); ++i) next.emplace(end_of_next(i), i);
    for (int64_t layer = 0; layer < left; ++layer) {
      const std::size_t shard = next.top().second;
      next.pop();
      ++split.layers[shard];
      next.emplace(end_of_next(shard), shard);
    }
  }
  split.cost = cost_of(us_per_layer, split.layers, objective);
  return split;
}

LoadBalancer::LoadBalancer(LoadBalancerConfig config) : config_(std::move(config)) {
  validate(config_);
}

void LoadBalancer::add_shard(std::string name, int64_t num_layers) {
  for (const Shard& shard : shards_) {
    if (shard.name == name) refuse("shard '", name, "' is there already");
  }
  ShardMetrics metrics(num_layers, config_.window);
  shards_.push_back({std::move(name), std::move(metrics)});
}

const LoadBalancer::Shard& LoadBalancer::find(std::string_view name) const {
  for (const Shard& shard : shards_) {
    if (shard.name == name) return shard;
  }
  refuse("there is no shard '", name, "'");
}

void LoadBalancer::record(std::string_view shard, double latency_us) {
  const Shard& found = find(shard);
  shards_[static_cast<std::size_t>(&found - shards_.data())].metrics.record(latency_us);
}

const ShardMetrics& LoadBalancer::metrics(std::string_view shard) const {
  return find(shard).metrics;
}

BalanceDecision LoadBalancer::evaluate() {
  BalanceDecision decision;
  for (const Shard& shard : shards_) {
    decision.shards.push_back(shard.name);
    decision.current_layers.push_back(shard.metrics.num_layers());
  }
  const auto now = config_.clock();
  if (has_evaluated_ && now - last_evaluation_ < config_.evaluation_interval) {
    decision.status = BalanceStatus::kTooSoon;
    decision.reason = "the evaluation interval has not passed";
    return decision;
  }
  has_evaluated_ = true;
  last_evaluation_ = now;
  for (const Shard& shard : shards_) {
    if (shard.metrics.num_samples() >= config_.min_samples) continue;
    decision.status = BalanceStatus::kInsufficientData;
    decision.reason = "shard '" + shard.name + "' has " +
                      std::to_string(shard.metrics.num_samples()) + " samples, needs " +
                      std::to_string(config_.min_samples);
    return decision;
  }
  return compare(std::move(decision));
}

BalanceDecision LoadBalancer::compare(BalanceDecision decision) const {
  std::vector<double> us_per_layer;
  for (const Shard& shard : shards_) us_per_layer.push_back(shard.metrics.mean_us_per_layer());
  decision.current_us = cost_of(us_per_layer, decision.current_layers, config_.objective);
  decision.suggested_us = decision.current_us;
  const auto balanced = [&](std::string reason) {
    decision.status = BalanceStatus::kBalanced;
    decision.reason = std::move(reason);
    return std::move(decision);
  };
  if (shards_.size() < 2) return balanced("there is nobody to share layers with");
  const auto [fastest, slowest] = std::minmax_element(us_per_layer.begin(), us_per_layer.end());
  if (*fastest == 0.0) {
    const auto unknown = static_cast<std::size_t>(fastest - us_per_layer.begin());
    return balanced("the speed of shard '" + shards_[unknown].name + "' is unknown");
  }
  const double ratio = *slowest / *fastest;
  const std::string says = "per-layer latency ratio " + two_decimals(ratio);
  const std::string threshold = " threshold " + two_decimals(config_.imbalance_threshold);
  if (ratio <= config_.imbalance_threshold) return balanced(says + " is within" + threshold);
  const auto num_layers =
      std::accumulate(decision.current_layers.begin(), decision.current_layers.end(), int64_t{0});
  if (num_layers < static_cast<int64_t>(shards_.size()) * config_.min_layers_per_shard) {
    return balanced("there are fewer layers than min_layers_per_shard asks for");
  }
  LayerSplit split =
      split_layers(us_per_layer, num_layers, config_.min_layers_per_shard, config_.objective);
  if (split.cost >= decision.current_us * (1.0 - kLeastGain)) {
    const char* what =
        config_.objective == BalanceObjective::kThroughput ? "bottleneck" : "total time";
    return balanced(std::string("no integer split has a smaller ") + what + " than " +
                    shortest(decision.current_us));
  }
  decision.status = BalanceStatus::kRebalance;
  decision.reason = says + " exceeds" + threshold;
  decision.suggested_layers = std::move(split.layers);
  decision.suggested_us = split.cost;
  decision.estimated_speedup = decision.current_us / split.cost;
  return decision;
}

void LoadBalancer::apply(std::span<const int64_t> num_layers) {
  if (num_layers.size() != shards_.size()) {
    refuse("num_layers has ", num_layers.size(), " elements, there are ", shards_.size(),
           " shards");
  }
  int64_t before = 0;
  int64_t after = 0;
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    check_range("num_layers", num_layers[i], 0, kMostLayers);
    before += shards_[i].metrics.num_layers();
    after += num_layers[i];
  }
  if (before != after) refuse("num_layers has ", after, " layers in all, must have ", before);
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    shards_[i].metrics = ShardMetrics(num_layers[i], config_.window);
  }
}

void LoadBalancer::reset() {
  for (Shard& shard : shards_) {
    shard.metrics = ShardMetrics(shard.metrics.num_layers(), config_.window);
  }
  has_evaluated_ = false;
}

}  // namespace switchyard

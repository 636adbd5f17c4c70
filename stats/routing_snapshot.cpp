#include "switchyard/routing_snapshot.h"

#include <algorithm>

#include "stats/refuse.h"
#include "stats/wrapping_sum.h"

namespace switchyard {

using stats::add_wrapping;

namespace {

double ratio(double part, double whole, double otherwise) {
  return whole > 0.0 ? part / whole : otherwise;
}

double ratio(int64_t part, int64_t whole, double otherwise) {
  return ratio(static_cast<double>(part), static_cast<double>(whole), otherwise);
}

double per_second(int64_t count, int64_t nanoseconds) {
  return ratio(static_cast<double>(count) * 1e9, static_cast<double>(nanoseconds), 0.0);
}

void check_shape(const RoutingSnapshot& mine, const RoutingSnapshot& other) {
  if (mine.layers.size() != other.layers.size() || mine.num_experts != other.num_experts) {
    stats::refuse("other has ", other.layers.size(), " layers of ", other.num_experts,
                  " experts, must have ", mine.layers.size(), " of ", mine.num_experts);
  }
  for (const LayerStats& layer : other.layers) {
    if (layer.tokens_per_expert.size() != static_cast<std::size_t>(other.num_experts)) {
      stats::refuse("a layer of other has ", layer.tokens_per_expert.size(), " counts, must have ",
                    other.num_experts);
    }
  }
}

void add_events(RoutingSnapshot& mine, const RoutingSnapshot& other) {
  add_wrapping(mine.timed_tokens, other.timed_tokens);
  add_wrapping(mine.timed_routings, other.timed_routings);
  add_wrapping(mine.timed_ns, other.timed_ns);
  add_wrapping(mine.dispatch_bytes, other.dispatch_bytes);
  add_wrapping(mine.rebalances, other.rebalances);
  add_wrapping(mine.moved_slots, other.moved_slots);
}

}  // namespace

double LayerSums::assignment_efficiency() const {
  const auto kept = static_cast<double>(assignments);
  return ratio(kept, kept + static_cast<double>(dropped_assignments), 1.0);
}

double LayerSums::token_efficiency() const {
  return ratio(tokens - fully_dropped_tokens, tokens, 1.0);
}

double LayerSums::mean_balance_loss() const {
  return ratio(balance_loss_sum.value(), static_cast<double>(balance_losses), 0.0);
}

double LayerSums::mean_z_loss() const {
  return ratio(z_loss_sum.value(), static_cast<double>(z_losses), 0.0);
}

double LayerSums::tokens_per_routing() const { return ratio(tokens, routings, 0.0); }

double LayerSums::mean_capacity_use() const {
  return ratio(capacity_use_sum.value(), static_cast<double>(limited_routings), 0.0);
}

double LayerSums::total_capacity_use() const { return ratio(capacity_used, capacity_offered, 0.0); }

double LayerSums::hit_rate() const {
  const auto found = static_cast<double>(hits);
  return ratio(found, found + static_cast<double>(misses), 1.0);
}

double LayerSums::mean_sacrificed_mass() const {
  return ratio(sacrificed_mass_sum.value(), static_cast<double>(mass_tokens), 0.0);
}

void LayerSums::add(const LayerSums& other) {
  add_wrapping(routings, other.routings);
  add_wrapping(tokens, other.tokens);
  add_wrapping(assignments, other.assignments);
  add_wrapping(dropped_assignments, other.dropped_assignments);
  add_wrapping(fully_dropped_tokens, other.fully_dropped_tokens);
  add_wrapping(balance_losses, other.balance_losses);
  add_wrapping(z_losses, other.z_losses);
  balance_loss_sum.add(other.balance_loss_sum);
  z_loss_sum.add(other.z_loss_sum);
  add_wrapping(limited_routings, other.limited_routings);
  add_wrapping(capacity_used, other.capacity_used);
  add_wrapping(capacity_offered, other.capacity_offered);
  add_wrapping(capacity_exceeded, other.capacity_exceeded);
  capacity_use_sum.add(other.capacity_use_sum);
  peak_capacity_use = std::max(peak_capacity_use, other.peak_capacity_use);
  peak_expert_capacity = std::max(peak_expert_capacity, other.peak_expert_capacity);
  add_wrapping(hits, other.hits);
  add_wrapping(misses, other.misses);
  add_wrapping(mass_tokens, other.mass_tokens);
  sacrificed_mass_sum.add(other.sacrificed_mass_sum);
  peak_sacrificed_mass = std::max(peak_sacrificed_mass, other.peak_sacrificed_mass);
  for (std::size_t i = 0; i < mass_histogram.size(); ++i) {
    add_wrapping(mass_histogram[i], other.mass_histogram[i]);
  }
}

LoadSummary LayerStats::load() const {
  return summarize_load({tokens_per_expert.data(), static_cast<int64_t>(tokens_per_expert.size())});
}

std::vector<double> LayerStats::utilization() const {
  std::vector<double> shares;
  shares.reserve(tokens_per_expert.size());
  for (const int64_t count : tokens_per_expert) shares.push_back(ratio(count, sums.tokens, 0.0));
  return shares;
}

double LayerStats::load_variance_trend(int64_t window) const {
  return trend_of({load_variances.data(), static_cast<int64_t>(load_variances.size())}, window);
}

double trend_of(VectorView<const double> values, int64_t window) {
  const int64_t size = std::min(values.size, window);
  if (size < 2) return 0.0;
  const double* const last = values.data + (values.size - size);
  // Differences from the first value: a slope small beside the values keeps its digits.
  double mean = 0.0;
  for (int64_t i = 0; i < size; ++i) mean += last[i] - last[0];
  mean /= static_cast<double>(size);
  const double middle = static_cast<double>(size - 1) / 2.0;
  double products = 0.0;
  double squares = 0.0;
  for (int64_t i = 0; i < size; ++i) {
    const double step = static_cast<double>(i) - middle;
    products += step * (last[i] - last[0] - mean);
    squares += step * step;
  }
  return products / squares;
}

LayerStats RoutingSnapshot::total() const {
  LayerStats total;
  total.tokens_per_expert.resize(static_cast<std::size_t>(num_experts));
  for (const LayerStats& layer : layers) {
    total.sums.add(layer.sums);
    add_wrapping(total.tokens_per_expert, layer.tokens_per_expert.data());
  }
  return total;
}

double RoutingSnapshot::tokens_per_second() const {
  return per_second(total().sums.tokens, duration_ns);
}

double RoutingSnapshot::routings_per_second() const {
  return per_second(total().sums.routings, duration_ns);
}

double RoutingSnapshot::tokens_per_busy_second() const {
  return per_second(timed_tokens, timed_ns);
}

double RoutingSnapshot::routings_per_busy_second() const {
  return per_second(timed_routings, timed_ns);
}

void RoutingSnapshot::merge_rank(const RoutingSnapshot& other) {
  check_shape(*this, other);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers[i].sums.add(other.layers[i].sums);
    add_wrapping(layers[i].tokens_per_expert, other.layers[i].tokens_per_expert.data());
    layers[i].load_variances.clear();
  }
  routing_latency.merge(other.routing_latency);
  plan_latency.merge(other.plan_latency);
  exchange_latency.merge(other.exchange_latency);
  add_events(*this, other);
  duration_ns = std::max(duration_ns, other.duration_ns);
}

void RoutingSnapshot::append(const RoutingSnapshot& later) {
  check_shape(*this, later);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers[i].sums.add(later.layers[i].sums);
    add_wrapping(layers[i].tokens_per_expert, later.layers[i].tokens_per_expert.data());
    std::vector<double>& history = layers[i].load_variances;
    const std::vector<double> theirs = later.layers[i].load_variances;
    history.insert(history.end(), theirs.begin(), theirs.end());
    const auto excess = static_cast<int64_t>(history.size()) - kVarianceHistory;
    if (excess > 0) history.erase(history.begin(), history.begin() + excess);
  }
  routing_latency.append(later.routing_latency);
  plan_latency.append(later.plan_latency);
  exchange_latency.append(later.exchange_latency);
  add_events(*this, later);
  add_wrapping(duration_ns, later.duration_ns);
}

std::map<std::string, double> RoutingSnapshot::summary() const {
  const LayerStats all = total();
  const LoadSummary load = all.load();
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  return {{"total_routings", number(all.sums.routings)},
          {"total_tokens", number(all.sums.tokens)},
          {"dropped_assignments", number(all.sums.dropped_assignments)},
          {"fully_dropped_tokens", number(all.sums.fully_dropped_tokens)},
          {"assignment_efficiency", all.sums.assignment_efficiency()},
          {"token_efficiency", all.sums.token_efficiency()},
          {"mean_balance_loss", all.sums.mean_balance_loss()},
          {"mean_z_loss", all.sums.mean_z_loss()},
          {"tokens_per_routing", all.sums.tokens_per_routing()},
          {"load_coefficient_of_variation", load.coefficient_of_variation},
          {"balancedness", load.balancedness},
          {"most_loaded_expert", number(load.most_loaded)},
          {"least_loaded_expert", number(load.least_loaded)},
          {"mean_capacity_use", all.sums.mean_capacity_use()},
          {"peak_capacity_use", all.sums.peak_capacity_use},
          {"capacity_exceeded", number(all.sums.capacity_exceeded)},
          {"hit_rate", all.sums.hit_rate()},
          {"mean_sacrificed_mass", all.sums.mean_sacrificed_mass()},
          {"dispatch_bytes", number(dispatch_bytes)},
          {"rebalances", number(rebalances)},
          {"moved_slots", number(moved_slots)},
          {"tokens_per_second", tokens_per_second()},
          {"routings_per_second", routings_per_second()},
          {"routing_latency_mean_ns", routing_latency.mean_ns()},
          {"routing_latency_p95_ns", routing_latency.recent_percentile_ns(95)},
          {"routing_latency_p99_ns", routing_latency.recent_percentile_ns(99)}};
}

}  // namespace switchyard

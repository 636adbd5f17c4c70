#include <nlohmann/json.hpp>

#include "switchyard/routing_snapshot.h"

namespace switchyard {
namespace {

using Json = nlohmann::ordered_json;

/// Infinities, as the minimum of nothing, become null when written.
Json json_of(const LatencySummary& latency) {
  return {{"count", latency.count()},
          {"mean_ns", latency.mean_ns()},
          {"min_ns", latency.min_ns()},
          {"max_ns", latency.max_ns()},
          {"p50_ns", latency.recent_percentile_ns(50)},
          {"p95_ns", latency.recent_percentile_ns(95)},
          {"p99_ns", latency.recent_percentile_ns(99)},
          {"lifetime_p50_ns", latency.percentile_ns(50)},
          {"lifetime_p95_ns", latency.percentile_ns(95)},
          {"lifetime_p99_ns", latency.percentile_ns(99)}};
}

Json json_of(const LayerStats& layer) {
  const LayerSums& sums = layer.sums;
  const LoadSummary load = layer.load();
  return {{"routings", sums.routings},
          {"tokens", sums.tokens},
          {"assignments", sums.assignments},
          {"dropped_assignments", sums.dropped_assignments},
          {"fully_dropped_tokens", sums.fully_dropped_tokens},
          {"assignment_efficiency", sums.assignment_efficiency()},
          {"token_efficiency", sums.token_efficiency()},
          {"tokens_per_routing", sums.tokens_per_routing()},
          {"mean_balance_loss", sums.mean_balance_loss()},
          {"mean_z_loss", sums.mean_z_loss()},
          {"balancedness", load.balancedness},
          {"max_over_mean", load.max_over_mean},
          {"load_coefficient_of_variation", load.coefficient_of_variation},
          {"most_loaded_expert", load.most_loaded},
          {"least_loaded_expert", load.least_loaded},
          {"load_variance_trend", layer.load_variance_trend()},
          {"mean_capacity_use", sums.mean_capacity_use()},
          {"total_capacity_use", sums.total_capacity_use()},
          {"peak_capacity_use", sums.peak_capacity_use},
          {"peak_expert_capacity", sums.peak_expert_capacity},
          {"capacity_used", sums.capacity_used},
          {"capacity_offered", sums.capacity_offered},
          {"capacity_exceeded", sums.capacity_exceeded},
          {"hits", sums.hits},
          {"misses", sums.misses},
          {"hit_rate", sums.hit_rate()},
          {"sacrificed_mass", sums.sacrificed_mass_sum.value()},
          {"mean_sacrificed_mass", sums.mean_sacrificed_mass()},
          {"peak_sacrificed_mass", sums.peak_sacrificed_mass}};
}

}  // namespace

std::string RoutingSnapshot::to_json() const {
  Json all = json_of(total());
  all.erase("load_variance_trend");  // layers have none together
  Json json = {{"duration_seconds", static_cast<double>(duration_ns) * 1e-9},
               {"num_layers", layers.size()},
               {"num_experts", num_experts},
               {"tokens_per_second", tokens_per_second()},
               {"routings_per_second", routings_per_second()},
               {"tokens_per_busy_second", tokens_per_busy_second()},
               {"routings_per_busy_second", routings_per_busy_second()},
               {"dispatch_bytes", dispatch_bytes},
               {"rebalances", rebalances},
               {"moved_slots", moved_slots},
               {"routing_latency", json_of(routing_latency)},
               {"plan_latency", json_of(plan_latency)},
               {"exchange_latency", json_of(exchange_latency)},
               {"total", std::move(all)},
               {"layers", Json::array()}};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    Json layer = {{"layer", i}};
    layer.update(json_of(layers[i]));
    layer["tokens_per_expert"] = layers[i].tokens_per_expert;
    json["layers"].push_back(std::move(layer));
  }
  return json.dump();
}

}  // namespace switchyard

#include "stats/metric_families.h"

#include <string>
#include <utility>

namespace switchyard::stats {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

ClientMetric::Label layer_label(std::size_t layer) { return {"layer", std::to_string(layer)}; }

class Families {
 public:
  explicit Families(const RoutingSnapshot& snapshot) : snapshot_(snapshot) {}

  MetricFamily& add(const char* name, const char* help, MetricType type) {
    MetricFamily& family = families_.emplace_back();
    family.name = name;
    family.help = help;
    family.type = type;
    return family;
  }
  void counter(const char* name, const char* help, int64_t value) {
    add(name, help, MetricType::Counter).metric.emplace_back().counter.value =
        static_cast<double>(value);
  }
  void gauge(const char* name, const char* help, double value) {
    add(name, help, MetricType::Gauge).metric.emplace_back().gauge.value = value;
  }
  void counter_of_layers(const char* name, const char* help, int64_t LayerSums::*value) {
    MetricFamily& family = add(name, help, MetricType::Counter);
    for (std::size_t layer = 0; layer < snapshot_.layers.size(); ++layer) {
      ClientMetric& metric = family.metric.emplace_back();
      metric.label.push_back(layer_label(layer));
      metric.counter.value = static_cast<double>(snapshot_.layers[layer].sums.*value);
    }
  }
  template <typename ValueOf>
  void gauge_of_layers(const char* name, const char* help, const ValueOf& value_of) {
    MetricFamily& family = add(name, help, MetricType::Gauge);
    for (std::size_t layer = 0; layer < snapshot_.layers.size(); ++layer) {
      ClientMetric& metric = family.metric.emplace_back();
      metric.label.push_back(layer_label(layer));
      metric.gauge.value = value_of(layer);
    }
  }
  void latency(const char* name, const char* help, const LatencySummary& latency) {
    ClientMetric::Histogram& histogram =
        add(name, help, MetricType::Histogram).metric.emplace_back().histogram;
    histogram.sample_count = static_cast<uint64_t>(latency.count());
    histogram.sample_sum = static_cast<double>(latency.sum_ns()) * 1e-9;
    // From 1 us to 17 s by fours. At powers of two, buckets end; that a bound's own nanosecond is
    // in the next one does not show.
    for (int power = 10; power <= 34; power += 2) {
      const int64_t bound = int64_t{1} << power;
      histogram.bucket.push_back({static_cast<uint64_t>(latency.count_up_to(bound - 1)),
                                  static_cast<double>(bound) * 1e-9});
    }
  }
  std::vector<MetricFamily> finish() { return std::move(families_); }

 private:
  const RoutingSnapshot& snapshot_;
  std::vector<MetricFamily> families_;
};

void add_volume(Families& families) {
  families.counter_of_layers("switchyard_routings_total", "Batches routed.", &LayerSums::routings);
  families.counter_of_layers("switchyard_tokens_total", "Tokens routed.", &LayerSums::tokens);
  families.counter_of_layers("switchyard_assignments_total",
                             "Choices of an expert by a token that were kept.",
                             &LayerSums::assignments);
  families.counter_of_layers("switchyard_dropped_assignments_total",
                             "Choices that capacity took away.", &LayerSums::dropped_assignments);
  families.counter_of_layers("switchyard_dropped_tokens_total",
                             "Tokens that lost all of their choices.",
                             &LayerSums::fully_dropped_tokens);
  families.counter_of_layers("switchyard_capacity_exceeded_total",
                             "Batches that dropped, or overfilled an expert.",
                             &LayerSums::capacity_exceeded);
}

void add_balance(Families& families, const RoutingSnapshot& snapshot,
                 const LayerBalancedness& balancedness) {
  families.gauge_of_layers("switchyard_layer_balancedness_ratio",
                           "Mean over max of the experts' loads, of the tokens of late; 1 is even.",
                           [&](std::size_t layer) { return balancedness.layers[layer]; });
  families.gauge("switchyard_balancedness_min_ratio", "Balancedness of the worst layer.",
                 balancedness.min);
  families.gauge("switchyard_balancedness_mean_ratio", "Mean balancedness of the layers.",
                 balancedness.mean);
  families.gauge("switchyard_balancedness_p50_ratio", "Median balancedness of the layers.",
                 balancedness.p50);
  families.gauge("switchyard_balancedness_p90_ratio",
                 "90th percentile of the layers' balancedness.", balancedness.p90);
  families.gauge("switchyard_balancedness_worst_layer",
                 "The layer with the lowest balancedness; -1 without load.",
                 static_cast<double>(balancedness.worst_layer));
  families.gauge_of_layers(
      "switchyard_balance_loss_mean", "Switch load-balance loss, mean of all batches.",
      [&](std::size_t layer) { return snapshot.layers[layer].sums.mean_balance_loss(); });
  families.gauge_of_layers(
      "switchyard_z_loss_mean", "Router z-loss, mean of all batches.",
      [&](std::size_t layer) { return snapshot.layers[layer].sums.mean_z_loss(); });
  families.gauge_of_layers(
      "switchyard_capacity_use_ratio",
      "Rows used of those offered by capacity, mean of all batches.",
      [&](std::size_t layer) { return snapshot.layers[layer].sums.mean_capacity_use(); });
}

void add_residency(Families& families, const RoutingSnapshot& snapshot) {
  families.counter_of_layers("switchyard_residency_hits_total",
                             "Choices of experts in fast memory.", &LayerSums::hits);
  families.counter_of_layers("switchyard_residency_misses_total",
                             "Choices of experts that were elsewhere.", &LayerSums::misses);
  families.gauge_of_layers(
      "switchyard_residency_hit_ratio", "Hits over hits and misses, of all choices; 1 without.",
      [&](std::size_t layer) { return snapshot.layers[layer].sums.hit_rate(); });
  const LayerSums sums = snapshot.total().sums;
  ClientMetric::Histogram& mass =
      families
          .add("switchyard_sacrificed_mass_ratio",
               "Gate weight that a token lost to a preference for resident experts.",
               MetricType::Histogram)
          .metric.emplace_back()
          .histogram;
  mass.sample_count = static_cast<uint64_t>(sums.mass_tokens);
  mass.sample_sum = sums.sacrificed_mass_sum.value();
  uint64_t cumulative = 0;
  for (std::size_t i = 0; i < kMassBounds.size(); ++i) {
    cumulative += static_cast<uint64_t>(sums.mass_histogram[i]);
    mass.bucket.push_back({cumulative, kMassBounds[i]});
  }
}

void add_experts(Families& families, const RoutingSnapshot& snapshot) {
  MetricFamily& family = families.add("switchyard_expert_assignments_total",
                                      "Kept choices of each expert.", MetricType::Counter);
  for (std::size_t layer = 0; layer < snapshot.layers.size(); ++layer) {
    const std::vector<int64_t>& counts = snapshot.layers[layer].tokens_per_expert;
    for (std::size_t expert = 0; expert < counts.size(); ++expert) {
      ClientMetric& metric = family.metric.emplace_back();
      metric.label = {layer_label(layer), {"expert", std::to_string(expert)}};
      metric.counter.value = static_cast<double>(counts[expert]);
    }
  }
}

}  // namespace

std::vector<MetricFamily> metric_families(const RoutingSnapshot& snapshot,
                                          const LayerBalancedness& balancedness, bool per_expert) {
  Families families(snapshot);
  add_volume(families);
  add_balance(families, snapshot, balancedness);
  add_residency(families, snapshot);
  families.latency("switchyard_routing_duration_seconds", "Time to route a batch.",
                   snapshot.routing_latency);
  families.latency("switchyard_plan_duration_seconds", "Time to plan an exchange.",
                   snapshot.plan_latency);
  families.latency("switchyard_exchange_duration_seconds", "Time of an exchange.",
                   snapshot.exchange_latency);
  families.counter("switchyard_dispatch_bytes_total", "Bytes dispatched to other ranks.",
                   snapshot.dispatch_bytes);
  families.counter("switchyard_rebalances_total", "Changes of the experts' placement.",
                   snapshot.rebalances);
  families.counter("switchyard_moved_slots_total", "Expert slots that changes of placement moved.",
                   snapshot.moved_slots);
  if (per_expert) add_experts(families, snapshot);
  return families.finish();
}

}  // namespace switchyard::stats

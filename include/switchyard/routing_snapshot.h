// What RoutingStats has counted, as values: to add up over ranks and time, to ask, to write out.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "switchyard/exact_sum.h"
#include "switchyard/latency.h"
#include "switchyard/load_statistics.h"

namespace switchyard {

/// Load variances that are kept of each layer.
inline constexpr int64_t kVarianceHistory = 1000;

/// Bounds of the distribution of sacrificed mass: bucket i holds masses up to bound i and above the
/// one before; one bucket more holds the rest.
inline constexpr std::array<double, 12> kMassBounds = {0.0,  0.001, 0.002, 0.005, 0.01, 0.02,
                                                       0.05, 0.1,   0.2,   0.5,   1.0,  2.0};

/// The sums of one layer, or of several. Integers and ExactSums, so that they do not depend on the
/// order of what was recorded.
struct LayerSums {
  int64_t routings = 0;  ///< batches recorded
  int64_t tokens = 0;
  int64_t assignments = 0;  ///< kept, the sum of tokens_per_expert
  int64_t dropped_assignments = 0;
  int64_t fully_dropped_tokens = 0;

  int64_t balance_losses = 0;  ///< batches that had one
  int64_t z_losses = 0;
  ExactSum balance_loss_sum;
  ExactSum z_loss_sum;

  int64_t limited_routings = 0;       ///< batches with a capacity above 0
  int64_t capacity_used = 0;          ///< assignments of these batches
  int64_t capacity_offered = 0;       ///< their capacities times experts
  int64_t capacity_exceeded = 0;      ///< batches that dropped, or overfilled an expert
  ExactSum capacity_use_sum;          ///< of each such batch, used / offered
  double peak_capacity_use = 0.0;     ///< highest used / offered of a batch
  double peak_expert_capacity = 0.0;  ///< highest share of its capacity that an expert used

  int64_t hits = 0;    ///< choices of experts that were resident
  int64_t misses = 0;  ///< of others

  int64_t mass_tokens = 0;  ///< tokens whose sacrificed mass was recorded
  ExactSum sacrificed_mass_sum;
  double peak_sacrificed_mass = 0.0;
  std::array<int64_t, kMassBounds.size() + 1> mass_histogram{};

  /// Shares are 1 and means 0 where there is nothing to divide by.
  [[nodiscard]] double assignment_efficiency() const;  ///< kept / (kept + dropped)
  [[nodiscard]] double token_efficiency() const;       ///< tokens not fully dropped / tokens
  [[nodiscard]] double mean_balance_loss() const;
  [[nodiscard]] double mean_z_loss() const;
  [[nodiscard]] double tokens_per_routing() const;
  [[nodiscard]] double mean_capacity_use() const;   ///< mean over the batches of used / offered
  [[nodiscard]] double total_capacity_use() const;  ///< all that was used / all that was offered
  [[nodiscard]] double hit_rate() const;            ///< hits / (hits + misses)
  [[nodiscard]] double mean_sacrificed_mass() const;

  void add(const LayerSums& other);
  bool operator==(const LayerSums&) const = default;
};

/// One layer, or several taken as one.
struct LayerStats {
  LayerSums sums;
  std::vector<int64_t> tokens_per_expert;  ///< [num_experts] assignments kept
  /// Population variance of tokens_per_expert of each of the latest kVarianceHistory batches,
  /// oldest first. Empty where layers or ranks were taken as one: what each of them varied by says
  /// nothing of their sum.
  std::vector<double> load_variances;

  /// max / mean, mean / max, coefficient of variation, most and least used expert (the lower id of
  /// equal ones), over all tokens.
  [[nodiscard]] LoadSummary load() const;
  /// [num_experts] assignments of each expert / tokens: the mean over the batches of its share,
  /// each by its tokens. 0 without tokens.
  [[nodiscard]] std::vector<double> utilization() const;
  /// Least-squares slope, a batch, of the latest `window` load variances; 0 for fewer than two.
  [[nodiscard]] double load_variance_trend(int64_t window = kVarianceHistory) const;

  bool operator==(const LayerStats&) const = default;
};

/// Everything that was recorded in a span of time.
struct RoutingSnapshot {
  int32_t num_experts = 0;
  int64_t duration_ns = 0;  ///< from the construction, or the last reset, to the snapshot
  std::vector<LayerStats> layers;

  LatencySummary routing_latency;
  LatencySummary plan_latency;
  LatencySummary exchange_latency;
  int64_t timed_tokens = 0;  ///< of the batches whose latency was recorded with them
  int64_t timed_routings = 0;
  int64_t timed_ns = 0;
  int64_t dispatch_bytes = 0;
  int64_t rebalances = 0;
  int64_t moved_slots = 0;

  /// All layers as one.
  [[nodiscard]] LayerStats total() const;
  /// Over all of duration_ns; 0 without time.
  [[nodiscard]] double tokens_per_second() const;
  [[nodiscard]] double routings_per_second() const;
  /// While routing: over the latencies recorded with batches, other time left out; 0 without.
  [[nodiscard]] double tokens_per_busy_second() const;
  [[nodiscard]] double routings_per_busy_second() const;

  /// Adds what another rank recorded in the same span of time.
  /// @throws InvalidArgument  when layers or experts differ in number, naming both.
  void merge_rank(const RoutingSnapshot& other);
  /// Adds the span of time that follows this one.
  /// @throws InvalidArgument  as merge_rank().
  void append(const RoutingSnapshot& later);

  /// The most telling numbers of all layers by name, for logs and tables.
  [[nodiscard]] std::map<std::string, double> summary() const;
  /// One JSON object on one line; what has no number there, as a minimum of nothing, is null.
  [[nodiscard]] std::string to_json() const;

  /// For other ranks: from_bytes() of it is equal to this. Little endian, of no fixed form between
  /// versions of the library.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  /// @throws InvalidArgument  for bytes that to_bytes() cannot have made.
  static RoutingSnapshot from_bytes(std::span<const std::byte> bytes);

  bool operator==(const RoutingSnapshot&) const = default;
};

/// Least-squares slope, a step, of the last `window` values; 0 for fewer than two.
double trend_of(VectorView<const double> values, int64_t window);

}  // namespace switchyard

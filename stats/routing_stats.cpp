// The front door: checks everything first, then makes one record of it.
#include "switchyard/routing_stats.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <limits>
#include <mutex>
#include <utility>

#include "stats/load_spread.h"
#include "stats/percentile_position.h"
#include "stats/refuse.h"
#include "stats/stats_cell.h"
#include "switchyard/router.h"

namespace switchyard {

using stats::check_range;
using stats::refuse;
using stats::StatsCell;

namespace {

constexpr int32_t kMaxLayers = 4096;
constexpr int32_t kMaxIds = kMaxExperts + kMaxSharedExperts;
constexpr int32_t kMaxRecorders = 64;
constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

void check_recorded(const char* name, int64_t value) {
  check_range(name, value, 0, RoutingStats::kMaxRecorded);
}

void check_term(const char* name, double value) {
  stats::check_real(name, value, 0.0, ExactSum::kMaxTerm);
}

/// Counts of expert_ids, on the stack.
class IdCounts {
 public:
  /// @throws InvalidArgument  for an unknown id, naming token and slot.
  IdCounts(MatrixView<const int32_t> expert_ids, int32_t num_experts) : num_experts_(num_experts) {
    const auto places = static_cast<uint32_t>(num_experts) + 1;  // place 0 is that of -1
    std::fill_n(counts_.begin(), places, 0);
    for (int64_t token = 0; token < expert_ids.rows; ++token) {
      const int32_t* const ids = expert_ids.row(token);
      for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
        const uint32_t place = static_cast<uint32_t>(ids[slot]) + 1;
        if (place >= places) {
          refuse("expert_ids of token ", token, ", slot ", slot, " is ", ids[slot],
                 ", must be in [-1, ", num_experts, ")");
        }
        ++counts_[place];
      }
    }
  }
  [[nodiscard]] VectorView<const int64_t> view() const {
    return {counts_.data() + 1, num_experts_};
  }

 private:
  int32_t num_experts_;
  std::array<int64_t, kMaxIds + 1> counts_;
};

/// What a batch with a capacity says of its use.
struct CapacityUse {
  bool is_limited = false;
  bool is_exceeded = false;
  int64_t offered = 0;
  double use = 0.0;     ///< of all capacity
  double expert = 0.0;  ///< highest of one expert

  CapacityUse(const RoutingRecord& routing, const stats::LoadSpread& load, int64_t num_experts) {
    const int64_t capacity = routing.expert_capacity;
    is_exceeded = routing.dropped_assignments > 0 || load.highest > capacity;
    if (capacity == kUnlimited || capacity == 0) return;  // 0 is that of no tokens
    is_limited = true;
    offered = capacity * num_experts;
    use = static_cast<double>(load.total) / static_cast<double>(offered);
    expert = static_cast<double>(load.highest) / static_cast<double>(capacity);
  }
};

std::size_t index_of(Phase phase) { return static_cast<std::size_t>(phase); }

}  // namespace

void validate(const RoutingStatsConfig& config) {
  check_range("num_layers", config.num_layers, 1, kMaxLayers);
  check_range("num_experts", config.num_experts, 1, kMaxIds);
  check_range("num_recorders", config.num_recorders, 1, kMaxRecorders);
}

class RoutingStats::Implementation {
 public:
  explicit Implementation(RoutingStatsConfig stats_config)
      : config(std::move(stats_config)), cells(static_cast<std::size_t>(config.num_recorders), [&] {
          return std::make_unique<StatsCell>(config.num_layers, config.num_experts);
        }) {}

  [[nodiscard]] int64_t now_ns() const {
    if (config.clock) return config.clock();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  int64_t next_ticket() { return tickets.fetch_add(1, std::memory_order_relaxed); }
  void check_layer(int32_t layer) const { check_range("layer", layer, 0, config.num_layers - 1); }
  void record(const RoutingRecord& routing, VectorView<const int64_t> counts);
  void record_masses(int32_t layer, const LayerSums& batch);
  RoutingSnapshot collect(bool starts_anew);

  const RoutingStatsConfig config;
  mutable std::mutex readers;  ///< so that a window ends for all of its cells at once
  std::atomic<int64_t> tickets{0};
  int64_t begin_ns = now_ns();
  stats::RecordCells<StatsCell> cells;
};

void RoutingStats::Implementation::record(const RoutingRecord& routing,
                                          VectorView<const int64_t> counts) {
  const stats::LoadSpread spread = stats::spread_of(counts, kMaxRecorded);
  const CapacityUse capacity(routing, spread, counts.size);
  const ExactSum capacity_use = ExactSum::of(capacity.use);
  const ExactSum balance_loss = ExactSum::of(routing.balance_loss.value_or(0.0));
  const ExactSum z_loss = ExactSum::of(routing.z_loss.value_or(0.0));
  const int64_t ticket = next_ticket();
  cells.record([&](auto access, StatsCell& cell) {
    using Access = decltype(access);
    const auto layer = static_cast<std::size_t>(routing.layer);
    LayerSums& sums = cell.layers[layer];
    Access::add(sums.routings, 1);
    Access::add(sums.tokens, routing.num_tokens);
    Access::add(sums.assignments, spread.total);
    Access::add(sums.dropped_assignments, routing.dropped_assignments);
    Access::add(sums.fully_dropped_tokens, routing.fully_dropped_tokens);
    if (routing.balance_loss) {
      Access::add(sums.balance_losses, 1);
      Access::add(sums.balance_loss_sum, balance_loss);
    }
    if (routing.z_loss) {
      Access::add(sums.z_losses, 1);
      Access::add(sums.z_loss_sum, z_loss);
    }
    if (capacity.is_exceeded) Access::add(sums.capacity_exceeded, 1);
    if (capacity.is_limited) {
      Access::add(sums.limited_routings, 1);
      Access::add(sums.capacity_used, spread.total);
      Access::add(sums.capacity_offered, capacity.offered);
      Access::add(sums.capacity_use_sum, capacity_use);
      Access::raise(sums.peak_capacity_use, capacity.use);
      Access::raise(sums.peak_expert_capacity, capacity.expert);
    }
    Access::add_all(cell.counts_of(routing.layer), counts);
    cell.load_variances[layer].add(access, ticket, spread.variance);
    if (routing.latency_ns) {
      Access::add(cell.events.timed_tokens, routing.num_tokens);
      Access::add(cell.events.timed_routings, 1);
      Access::add(cell.events.timed_ns, *routing.latency_ns);
      cell.latencies[index_of(Phase::kRouting)].add(access, ticket, *routing.latency_ns);
    }
  });
}

RoutingSnapshot RoutingStats::Implementation::collect(bool starts_anew) {
  stats::SnapshotCollector collector(config.num_layers, config.num_experts);
  const std::lock_guard lock(readers);
  const int64_t now = now_ns();
  cells.visit([&](StatsCell& cell) {
    collector.add(cell);
    if (starts_anew) cell.clear();
  });
  RoutingSnapshot snapshot = collector.finish();
  snapshot.duration_ns = now - begin_ns;
  if (starts_anew) begin_ns = now;
  return snapshot;
}

RoutingStats::RoutingStats(const RoutingStatsConfig& config) {
  validate(config);
  implementation_ = std::make_unique<Implementation>(config);
}

RoutingStats::~RoutingStats() = default;
RoutingStats::RoutingStats(RoutingStats&&) noexcept = default;
RoutingStats& RoutingStats::operator=(RoutingStats&&) noexcept = default;

const RoutingStatsConfig& RoutingStats::config() const { return implementation_->config; }

int64_t RoutingStats::now_ns() const { return implementation_->now_ns(); }

void RoutingStats::record(const RoutingRecord& routing) {
  const int32_t num_experts = config().num_experts;
  implementation_->check_layer(routing.layer);
  check_recorded("num_tokens", routing.num_tokens);
  check_recorded("dropped_assignments", routing.dropped_assignments);
  check_range("fully_dropped_tokens", routing.fully_dropped_tokens, 0,
              std::min(routing.num_tokens, routing.dropped_assignments));
  if (routing.balance_loss) check_term("balance_loss", *routing.balance_loss);
  if (routing.z_loss) check_term("z_loss", *routing.z_loss);
  if (routing.latency_ns) check_recorded("latency_ns", *routing.latency_ns);
  if (routing.expert_capacity != kUnlimited) {
    check_recorded("expert_capacity", routing.expert_capacity);
  }
  const VectorView<const int64_t> counts = routing.tokens_per_expert;
  const MatrixView<const int32_t> ids = routing.expert_ids;
  const bool has_ids = ids.data != nullptr || ids.rows != 0 || ids.cols != 0;
  if (has_ids && counts.size != 0) refuse("tokens_per_expert and expert_ids are both given");
  if (!has_ids) {
    if (counts.size != num_experts) {
      refuse("tokens_per_expert has ", counts.size, " elements, must have ", num_experts);
    }
    if (counts.data == nullptr) refuse("tokens_per_expert is a null pointer");
    return implementation_->record(routing, counts);
  }
  check_range("expert_ids rows", ids.rows, 0, kMaxRecorded);
  check_range("expert_ids columns", ids.cols, 0, kMaxIds);
  if (ids.rows != 0 && ids.cols != 0) {
    if (ids.data == nullptr) refuse("expert_ids is a null pointer");
    if (ids.row_stride < ids.cols) {
      refuse("expert_ids has row_stride ", ids.row_stride, ", must be at least its ", ids.cols,
             " columns");
    }
  }
  implementation_->record(routing, IdCounts(ids, num_experts).view());
}

void RoutingStats::record_residency(int32_t layer, int64_t hits, int64_t misses) {
  implementation_->check_layer(layer);
  check_recorded("hits", hits);
  check_recorded("misses", misses);
  implementation_->cells.record([&](auto access, StatsCell& cell) {
    using Access = decltype(access);
    LayerSums& sums = cell.layers[static_cast<std::size_t>(layer)];
    Access::add(sums.hits, hits);
    Access::add(sums.misses, misses);
  });
}

namespace {

/// Puts one token's mass into the sums of its batch.
void add_mass(LayerSums& batch, double mass) {
  const auto* const bucket = std::lower_bound(kMassBounds.begin(), kMassBounds.end(), mass);
  ++batch.mass_histogram[static_cast<std::size_t>(bucket - kMassBounds.begin())];
  ++batch.mass_tokens;
  batch.sacrificed_mass_sum.add(mass);
  batch.peak_sacrificed_mass = std::max(batch.peak_sacrificed_mass, mass);
}

}  // namespace

void RoutingStats::Implementation::record_masses(int32_t layer, const LayerSums& batch) {
  cells.record([&](auto access, StatsCell& cell) {
    using Access = decltype(access);
    LayerSums& sums = cell.layers[static_cast<std::size_t>(layer)];
    Access::add(sums.mass_tokens, batch.mass_tokens);
    Access::add(sums.sacrificed_mass_sum, batch.sacrificed_mass_sum);
    Access::raise(sums.peak_sacrificed_mass, batch.peak_sacrificed_mass);
    Access::add_all(sums.mass_histogram.data(), {batch.mass_histogram.data(),
                                                 static_cast<int64_t>(sums.mass_histogram.size())});
  });
}

void RoutingStats::record_sacrificed_mass(int32_t layer, VectorView<const float> mass_of_tokens) {
  implementation_->check_layer(layer);
  check_recorded("mass_of_tokens size", mass_of_tokens.size);
  if (mass_of_tokens.size != 0 && mass_of_tokens.data == nullptr) {
    refuse("mass_of_tokens is a null pointer");
  }
  LayerSums batch;
  for (int64_t token = 0; token < mass_of_tokens.size; ++token) {
    const auto mass = static_cast<double>(mass_of_tokens[token]);
    if (!(mass >= 0.0 && mass <= ExactSum::kMaxTerm)) {
      refuse("mass_of_tokens of token ", token, " is ", mass, ", must be in [0, ",
             ExactSum::kMaxTerm, "]");
    }
    add_mass(batch, mass);
  }
  implementation_->record_masses(layer, batch);
}

void RoutingStats::record_sacrificed_mass(int32_t layer, double mass) {
  implementation_->check_layer(layer);
  check_term("mass", mass);
  LayerSums batch;
  add_mass(batch, mass);
  implementation_->record_masses(layer, batch);
}

void RoutingStats::record_plan(int64_t nanoseconds) { record_latency(Phase::kPlan, nanoseconds); }

void RoutingStats::record_exchange(int64_t bytes, int64_t nanoseconds) {
  check_recorded("bytes", bytes);
  check_recorded("nanoseconds", nanoseconds);
  const int64_t ticket = implementation_->next_ticket();
  implementation_->cells.record([&](auto access, StatsCell& cell) {
    decltype(access)::add(cell.events.dispatch_bytes, bytes);
    cell.latencies[index_of(Phase::kExchange)].add(access, ticket, nanoseconds);
  });
}

void RoutingStats::record_rebalance(int64_t moved_slots) {
  check_recorded("moved_slots", moved_slots);
  implementation_->cells.record([&](auto access, StatsCell& cell) {
    decltype(access)::add(cell.events.rebalances, 1);
    decltype(access)::add(cell.events.moved_slots, moved_slots);
  });
}

void RoutingStats::record_latency(Phase phase, int64_t nanoseconds) {
  check_recorded("nanoseconds", nanoseconds);
  const int64_t ticket = implementation_->next_ticket();
  implementation_->cells.record([&](auto access, StatsCell& cell) {
    cell.latencies[index_of(phase)].add(access, ticket, nanoseconds);
  });
}

RoutingSnapshot RoutingStats::snapshot() const { return implementation_->collect(false); }

RoutingSnapshot RoutingStats::take_window() { return implementation_->collect(true); }

void RoutingStats::reset() {
  const std::lock_guard lock(implementation_->readers);
  implementation_->cells.visit([](StatsCell& cell) { cell.clear(); });
  implementation_->begin_ns = implementation_->now_ns();
}

LatencySummary RoutingStats::latency(Phase phase) const {
  stats::LatencyCollector collector;
  const std::lock_guard lock(implementation_->readers);
  implementation_->cells.visit(
      [&](const StatsCell& cell) { collector.add(cell.latencies[index_of(phase)]); });
  return collector.finish();
}

double RoutingStats::latency_percentile_ns(Phase phase, double percent) const {
  percent = stats::checked_percent(percent);
  std::array<int64_t, LatencyBuckets::kGroups> groups{};
  double lowest = std::numeric_limits<double>::infinity();
  double highest = 0.0;
  int64_t count = 0;
  const std::lock_guard lock(implementation_->readers);
  implementation_->cells.visit([&](const StatsCell& cell) {
    const stats::LatencyCell& latency = cell.latencies[index_of(phase)];
    if (latency.max_ns < latency.min_ns) return;  // nothing yet
    lowest = std::min(lowest, static_cast<double>(latency.min_ns));
    highest = std::max(highest, static_cast<double>(latency.max_ns));
    for (std::size_t group = 0; group < groups.size(); ++group) {
      const int64_t size = latency.groups[static_cast<int64_t>(group)];
      groups[group] += size;
      count += size;
    }
  });
  if (count == 0) return 0.0;
  // Only the groups that hold the percentile's two neighbours are looked into. They may have
  // grown meanwhile, which moves the answer by what was recorded since.
  const auto group_of = [&](int64_t rank) {
    int group = 0;
    while (rank >= groups[static_cast<std::size_t>(group)]) {
      rank -= groups[static_cast<std::size_t>(group++)];
    }
    return group;
  };
  const stats::PercentilePosition position(count, percent);
  const int first = group_of(position.below) * LatencyBuckets::kPerGroup;
  const int second = group_of(position.above) * LatencyBuckets::kPerGroup;
  std::array<int64_t, LatencyBuckets::kCount> histogram;  // zeroed where it is used
  std::fill_n(histogram.begin() + first, LatencyBuckets::kPerGroup, 0);
  std::fill_n(histogram.begin() + second, LatencyBuckets::kPerGroup, 0);
  implementation_->cells.visit([&](const StatsCell& cell) {
    const stats::LatencyCell& latency = cell.latencies[index_of(phase)];
    if (latency.max_ns < latency.min_ns) return;
    const auto add = [&](int begin) {
      for (int i = begin; i < begin + LatencyBuckets::kPerGroup; ++i) {
        histogram[static_cast<std::size_t>(i)] += latency.histogram[i];
      }
    };
    add(first);
    if (second != first) add(second);
  });
  return std::clamp(percentile_of_histogram({groups.data(), LatencyBuckets::kGroups},
                                            {histogram.data(), LatencyBuckets::kCount}, percent),
                    lowest, highest);
}

}  // namespace switchyard

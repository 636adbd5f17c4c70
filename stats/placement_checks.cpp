#include "stats/placement_checks.h"

#include <cmath>

#include "stats/refuse.h"

namespace switchyard {

using stats::check_range;
using stats::refuse;

namespace {

void check_amount(const char* name, double value) {
  if (!std::isfinite(value) || value < 0.0) {
    refuse(name, " is ", value, ", must be finite and 0 or more");
  }
}

void check_divides(const char* name, int64_t value, const char* by, int64_t divisor) {
  if (value % divisor != 0) {
    refuse(name, " is ", value, ", must be a multiple of ", by, ", ", divisor);
  }
}

}  // namespace

void validate(const PlacementPlannerConfig& config) {
  check_range("num_experts", config.num_experts, 1, kMaxPlacementExperts);
  check_range("num_ranks", config.num_ranks, 1, kMaxPlacementRanks);
  check_range("num_slots", config.num_slots, config.num_experts, kMaxPlacementSlots);
  check_divides("num_slots", config.num_slots, "num_ranks", config.num_ranks);
  check_range("num_nodes", config.num_nodes, 1, config.num_ranks);
  check_divides("num_ranks", config.num_ranks, "num_nodes", config.num_nodes);
  check_range("num_groups", config.num_groups, 1, config.num_experts);
  check_divides("num_experts", config.num_experts, "num_groups", config.num_groups);
  if (config.scope == PlacementScope::kHierarchical) {
    const bool alone = config.num_groups == 1;
    check_divides(alone ? "num_experts" : "num_groups",
                  alone ? config.num_experts : config.num_groups, "num_nodes", config.num_nodes);
  }
  check_range("num_threads", config.num_threads, 0, 1024);
  stats::check_speeds(config.rank_speeds, config.num_ranks);
}

void validate(const MigrationPolicy& policy) {
  if (policy.max_moved_slots && *policy.max_moved_slots < 0) {
    refuse("max_moved_slots is ", *policy.max_moved_slots, ", must be 0 or more");
  }
  check_amount("min_gain", policy.min_gain);
  check_amount("min_gain_per_slot", policy.min_gain_per_slot);
  check_amount("samples_per_load", policy.samples_per_load.value_or(0.0));
  if (policy.bytes_per_slot < 0) {
    refuse("bytes_per_slot is ", policy.bytes_per_slot, ", must be 0 or more");
  }
  check_amount("bandwidth_gbps", policy.bandwidth_gbps);
  check_amount("pause_seconds", policy.pause_seconds);
  check_amount("seconds_per_load", policy.seconds_per_load);
  check_amount("times_repeated", policy.times_repeated);
}

namespace stats {

void check_speeds(std::span<const double> rank_speeds, int32_t num_ranks) {
  if (!rank_speeds.empty() && static_cast<int64_t>(rank_speeds.size()) != num_ranks) {
    refuse("rank_speeds has ", rank_speeds.size(), " elements, must have one for each of ",
           num_ranks, " ranks");
  }
  for (std::size_t rank = 0; rank < rank_speeds.size(); ++rank) {
    if (std::isfinite(rank_speeds[rank]) && rank_speeds[rank] > 0.0) continue;
    refuse("rank_speeds[", rank, "] is ", rank_speeds[rank], ", must be finite and above 0");
  }
}

void check_loads(MatrixView<const double> loads, int32_t num_experts) {
  if (loads.rows < 1) refuse("loads has ", loads.rows, " layers, must have at least 1");
  if (loads.cols != num_experts) {
    refuse("loads has ", loads.cols, " experts, num_experts is ", num_experts);
  }
  for (int64_t layer = 0; layer < loads.rows; ++layer) {
    double total = 0.0;
    for (int64_t expert = 0; expert < loads.cols; ++expert) {
      const double load = loads.row(layer)[expert];
      if (!std::isfinite(load) || load < 0.0) {
        refuse("loads[", layer, "][", expert, "] is ", load, ", must be finite and 0 or more");
      }
      total += load;
    }
    if (!std::isfinite(total)) refuse("the sum of loads[", layer, "] overflows");
  }
}

void check_in_force(const PlacementPlannerConfig& config, std::span<const ExpertPlacement> in_force,
                    int64_t num_layers) {
  if (static_cast<int64_t>(in_force.size()) != num_layers) {
    refuse("in_force has ", in_force.size(), " layers, loads has ", num_layers);
  }
  for (std::size_t layer = 0; layer < in_force.size(); ++layer) {
    const ExpertPlacement& placement = in_force[layer];
    const auto expect = [&](const char* what, int64_t here, int64_t wanted) {
      if (here == wanted) return;
      refuse("in_force[", layer, "] has ", here, ' ', what, ", must have ", wanted);
    };
    expect("experts", placement.num_experts(), config.num_experts);
    expect("ranks", placement.num_ranks(), config.num_ranks);
    expect("slots", placement.num_slots(), config.num_slots);
    for (int32_t rank = 0; rank < config.num_ranks; ++rank) {
      if (placement.num_slots_of(rank) == config.num_slots / config.num_ranks) continue;
      refuse("in_force[", layer, "] has ", placement.num_slots_of(rank), " slots on rank ", rank,
             ", must have ", config.num_slots / config.num_ranks, " on each");
    }
  }
}

}  // namespace stats
}  // namespace switchyard

#include "tools/placement_simulation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "switchyard/errors.h"
#include "switchyard/placement_controller.h"
#include "tools/placement_options.h"

namespace switchyard::tools {
namespace {

std::size_t index_of(int64_t value) { return static_cast<std::size_t>(value); }

std::vector<double> rank_loads(const ExpertPlacement& placement, std::span<const int64_t> counts) {
  std::vector<double> loads(index_of(placement.num_ranks()));
  for (int32_t rank = 0; rank < placement.num_ranks(); ++rank) {
    const int32_t end = placement.slot_offsets()[index_of(rank) + 1];
    for (int32_t slot = placement.slot_offsets()[index_of(rank)]; slot < end; ++slot) {
      const int32_t expert = placement.slot_to_expert()[index_of(slot)];
      if (expert < 0) continue;
      const int32_t copies = placement.replica_offsets()[index_of(expert) + 1] -
                             placement.replica_offsets()[index_of(expert)];
      loads[index_of(rank)] += static_cast<double>(counts[index_of(expert)]) / copies;
    }
  }
  return loads;
}

std::vector<ExpertPlacement> placements_of(PlacementPlan plan) {
  std::vector<ExpertPlacement> placements;
  for (PlannedLayer& layer : plan.layers) placements.push_back(std::move(layer.placement));
  return placements;
}

class Simulation {
 public:
  Simulation(const SimulationConfig& config, const LoadWindows& windows, SimulatedPolicy policy)
      : config_(config),
        windows_(windows),
        policy_(policy),
        controller_({.planner = config.planner,
                     .policy = config.policy,
                     .num_layers = static_cast<int32_t>(windows.num_layers()),
                     .decay = policy == SimulatedPolicy::kBudgeted ? config.decay : 0.0}) {
    check_range("--period", config.period, 1, 1'000'000);
    record(0);
    controller_.adopt(placements_of(plan_placement(config_.planner, controller_.loads())));
  }

  std::vector<SimulatedWindow> run(const std::function<void(const SimulatedWindow&)>& observe) {
    std::vector<SimulatedWindow> played;
    for (int64_t window = 1; window < windows_.num_windows(); ++window) {
      SimulatedWindow result{.policy = policy_, .window = window};
      const auto start = std::chrono::steady_clock::now();
      if (window > 1) change(window, result);
      result.plan_seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      measure(window, result);
      record(window);
      played.push_back(result);
      observe(result);
    }
    return played;
  }

 private:
  void record(int64_t window) {
    for (int64_t layer = 0; layer < windows_.num_layers(); ++layer) {
      const std::span<const int64_t> counts = windows_.counts(window, layer);
      controller_.record(static_cast<int32_t>(layer), {counts.data(), windows_.num_experts()});
    }
    controller_.end_window();
  }

  void change(int64_t window, SimulatedWindow& result) {
    if (policy_ == SimulatedPolicy::kBudgeted) {
      PlacementPlan plan = controller_.replan();
      if (plan.verdict != PlacementVerdict::kChanged) return;
      pay(plan.moves, result);
      controller_.adopt(placements_of(std::move(plan)));
      return;
    }
    // The plan for the first window serves the first period.
    const bool due = (window - 1) % config_.period == 0;
    if (policy_ != SimulatedPolicy::kPeriodic || !due) return;
    auto placements = placements_of(plan_placement(config_.planner, controller_.loads()));
    std::vector<PlacementMove> moves;
    for (std::size_t layer = 0; layer < placements.size(); ++layer) {
      const auto more = schedule_moves(controller_.in_force()[layer], placements[layer],
                                       static_cast<int32_t>(layer), config_.policy.bytes_per_slot,
                                       config_.links.model().ranks_per_node);
      moves.insert(moves.end(), more.begin(), more.end());
    }
    pay(moves, result);
    controller_.adopt(std::move(placements));
  }

  void pay(const std::vector<PlacementMove>& moves, SimulatedWindow& result) const {
    for (const PlacementMove& move : moves) {
      result.moved_bytes += move.bytes;
      result.moved_slots += move.kind != MoveKind::kPutBack ? 1 : 0;
    }
    result.move_seconds = config_.policy.pause_seconds;
    if (config_.policy.bandwidth_gbps > 0.0) {
      result.move_seconds +=
          static_cast<double>(busiest_rank_bytes(moves, config_.planner.num_ranks)) /
          (config_.policy.bandwidth_gbps * 1e9);
    }
  }

  void measure(int64_t window, SimulatedWindow& result) const {
    double sum_of_ratios = 0.0;
    for (int64_t layer = 0; layer < windows_.num_layers(); ++layer) {
      const std::span<const int64_t> counts = windows_.counts(window, layer);
      const ExpertPlacement& placement = controller_.in_force()[index_of(layer)];
      const std::vector<double> loads = rank_loads(placement, counts);
      const std::vector<double> as_doubles(counts.begin(), counts.end());
      const double ratio = max_over_mean(placement, {as_doubles.data(), windows_.num_experts()},
                                         config_.planner.rank_speeds);
      sum_of_ratios += ratio;
      result.worst_max_over_mean = std::max(result.worst_max_over_mean, ratio);
      double slowest = 0.0;
      for (std::size_t rank = 0; rank < loads.size(); ++rank) {
        const auto& speeds = config_.planner.rank_speeds;
        slowest = std::max(slowest, speeds.empty() ? loads[rank] : loads[rank] / speeds[rank]);
        result.worst_rank_load = std::max(result.worst_rank_load, loads[rank]);
      }
      result.compute_seconds += slowest * config_.policy.seconds_per_load;
      const TrafficMatrix traffic = even_traffic(loads);
      result.dispatch_bytes += traffic_volume(traffic, config_.row_bytes).total_bytes;
      result.exchange_seconds += exchange_seconds(traffic);
    }
    result.mean_max_over_mean = sum_of_ratios / static_cast<double>(windows_.num_layers());
  }

  /// Tokens start evenly on all ranks.
  [[nodiscard]] TrafficMatrix even_traffic(const std::vector<double>& loads) const {
    const int32_t num_ranks = config_.planner.num_ranks;
    TrafficMatrix traffic(num_ranks);
    for (int32_t from = 0; from < num_ranks; ++from) {
      for (int32_t to = 0; to < num_ranks; ++to) {
        traffic.at(from, to) = std::llround(loads[index_of(to)] / num_ranks);
      }
    }
    return traffic;
  }

  [[nodiscard]] double exchange_seconds(const TrafficMatrix& traffic) const {
    // Loads do not say how many choices a token has: an all-to-all's passes.
    constexpr double kPasses = 2.0;
    const auto seconds = [&](const TrafficMatrix& rows) {
      return predict_seconds(config_.links.model_for(rows, config_.row_bytes, kPasses), rows,
                             config_.row_bytes);
    };
    return seconds(traffic) + seconds(traffic.transposed());
  }

  const SimulationConfig& config_;
  const LoadWindows& windows_;
  SimulatedPolicy policy_;
  PlacementController controller_;
};

}  // namespace

const char* name_of(SimulatedPolicy policy) {
  switch (policy) {
    case SimulatedPolicy::kNone:
      return "none";
    case SimulatedPolicy::kPeriodic:
      return "periodic";
    case SimulatedPolicy::kBudgeted:
      break;
  }
  return "budgeted";
}

SimulatedPolicy parse_simulated_policy(const std::string& name) {
  for (const SimulatedPolicy policy :
       {SimulatedPolicy::kNone, SimulatedPolicy::kPeriodic, SimulatedPolicy::kBudgeted}) {
    if (name == name_of(policy)) return policy;
  }
  throw InvalidArgument("--policy is '" + name + "', must be none, periodic or budgeted");
}

std::vector<SimulatedWindow> simulate_placement(
    const SimulationConfig& config, const LoadWindows& windows, SimulatedPolicy policy,
    const std::function<void(const SimulatedWindow&)>& observe) {
  return Simulation(config, windows, policy).run(observe);
}

}  // namespace switchyard::tools

#include "switchyard/placement_planner.h"

#include <algorithm>
#include <cmath>

#include "stats/index_of.h"
#include "stats/layer_threads.h"
#include "stats/placement_checks.h"
#include "stats/placement_layer.h"
#include "stats/placement_options.h"

namespace switchyard {

using stats::index_of;
using stats::LayerOptions;
using stats::LayerProblem;

namespace {

/// What all layers have in common.
struct Shape {
  const PlacementPlannerConfig& config;
  std::vector<double> speeds;
  int32_t num_groups = 0;  ///< that stay in a node; 0: experts go anywhere

  explicit Shape(const PlacementPlannerConfig& planned) : config(planned) {
    speeds = config.rank_speeds;
    if (speeds.empty()) speeds.assign(index_of(config.num_ranks), 1.0);
    if (config.scope == PlacementScope::kGlobal || config.num_nodes == 1) return;
    if (config.scope == PlacementScope::kHierarchical) {
      num_groups = config.num_groups == 1 ? config.num_experts : config.num_groups;
    } else if (config.num_groups > 1 && config.num_groups % config.num_nodes == 0) {
      num_groups = config.num_groups;
    }
  }

  [[nodiscard]] LayerProblem problem(const double* loads) const {
    return {.loads = {loads, index_of(config.num_experts)},
            .speeds = speeds,
            .slots_per_rank = config.num_slots / config.num_ranks,
            .ranks_per_node = num_groups == 0 ? 0 : config.num_ranks / config.num_nodes,
            .may_drop_copies = !config.rank_speeds.empty(),
            .may_repeat_on_rank = config.may_repeat_on_rank};
  }
  [[nodiscard]] std::vector<int32_t> place(const LayerProblem& problem) const {
    return num_groups == 0 ? stats::place_globally(problem)
                           : stats::place_in_nodes(problem, num_groups);
  }
  [[nodiscard]] ExpertPlacement placement(std::span<const int32_t> slots) const {
    return ExpertPlacement::from_slots(config.num_experts, config.num_ranks, slots);
  }
};

double over_mean(const LayerProblem& problem, double time) {
  const double mean = stats::mean_time(problem);
  return mean > 0.0 ? time / mean : 1.0;
}

double over_mean(const LayerProblem& problem, std::span<const int32_t> slots) {
  return over_mean(problem, stats::longest_time(problem, slots));
}

bool all_whole(MatrixView<const double> loads) {
  for (int64_t layer = 0; layer < loads.rows; ++layer) {
    const double* row = loads.row(layer);
    if (!std::all_of(row, row + loads.cols, [](double x) { return x == std::floor(x); })) {
      return false;
    }
  }
  return true;
}

/// How far chance alone lets max/mean rise when the loads of a sample are planned for and another
/// sample comes: both are uncertain, and of many ranks the unluckiest counts, which normal numbers
/// exceed by sqrt(2 ln num_ranks) deviations only rarely.
double chance_gain(const LayerProblem& problem, std::span<const int32_t> slots,
                   double samples_per_load) {
  const double mean = stats::mean_time(problem);
  if (samples_per_load == 0.0 || mean == 0.0) return 0.0;
  std::vector<int32_t> copies(problem.loads.size());
  for (const int32_t expert : slots) {
    if (expert >= 0) ++copies[index_of(expert)];
  }
  double worst = 0.0;
  for (int32_t rank = 0; rank < problem.num_ranks(); ++rank) {
    double variance = 0.0;
    for (int32_t i = 0; i < problem.slots_per_rank; ++i) {
      const int32_t expert = slots[index_of(int64_t{rank} * problem.slots_per_rank + i)];
      if (expert < 0) continue;
      const auto count = static_cast<double>(copies[index_of(expert)]);
      variance += problem.loads[index_of(expert)] / (count * count) / samples_per_load;
    }
    worst = std::max(worst, std::sqrt(variance) / problem.speeds[index_of(rank)]);
  }
  return 2.0 * std::sqrt(std::log(std::max(problem.num_ranks(), 2))) * worst / mean;
}

/// Replaces placements by the options chosen; what they save and cost.
class Change {
 public:
  Change(const Shape& shape, MatrixView<const double> loads,
         std::span<const ExpertPlacement> in_force, const MigrationPolicy& policy)
      : shape_(shape), loads_(loads), in_force_(in_force), policy_(policy) {
    const int64_t all = loads.rows * shape.config.num_slots;
    most_moved_ = std::min(policy.max_moved_slots.value_or(all), all);
    samples_per_load_ = policy.samples_per_load.value_or(all_whole(loads) ? 1.0 : 0.0);
  }

  [[nodiscard]] PlacementPlan plan() {
    find_options();
    std::vector<std::size_t> chosen = choose();
    improve(chosen);
    chosen = choose();
    PlacementPlan plan = apply(chosen);
    if (plan.moved_slots == 0 && !changes(chosen)) {
      plan.verdict = PlacementVerdict::kGoodEnough;
      return plan;
    }
    plan.verdict = PlacementVerdict::kChanged;
    if (policy_.seconds_per_load == 0.0 || plan.gain_seconds > plan.cost_seconds) return plan;
    PlacementPlan kept = apply(std::vector<std::size_t>(options_.size()));
    kept.verdict = PlacementVerdict::kNotWorthCost;
    kept.gain_seconds = plan.gain_seconds;
    kept.cost_seconds = plan.cost_seconds;
    return kept;
  }

 private:
  void find_options() {
    options_.resize(index_of(loads_.rows));
    min_time_per_slot_.resize(index_of(loads_.rows));
    stats::for_each_layer(loads_.rows, shape_.config.num_threads, [&](int64_t layer) {
      const LayerProblem problem = shape_.problem(loads_.row(layer));
      const std::span<const int32_t> slots = in_force_[index_of(layer)].slot_to_expert();
      LayerOptions& found = options_[index_of(layer)];
      found =
          stats::find_options(problem, slots, shape_.place(problem), most_moved_,
                              static_cast<double>(most_moved_) / static_cast<double>(loads_.rows));
      const double mean = stats::mean_time(problem);
      const double gain = found.options.front().time - found.attainable_time;
      const double least =
          std::max(policy_.min_gain, chance_gain(problem, slots, samples_per_load_));
      if (gain < least * mean) found.options.resize(1);
      min_time_per_slot_[index_of(layer)] =
          std::max(policy_.min_gain_per_slot * mean, time_worth_a_slot());
    });
  }

  [[nodiscard]] std::vector<std::size_t> choose() const {
    return stats::choose_options(options_, most_moved_, min_time_per_slot_);
  }

  /// Searches on where slots were given to.
  void improve(const std::vector<std::size_t>& chosen) {
    stats::for_each_layer(loads_.rows, shape_.config.num_threads, [&](int64_t layer) {
      stats::improve_option(shape_.problem(loads_.row(layer)),
                            in_force_[index_of(layer)].slot_to_expert(), chosen[index_of(layer)],
                            options_[index_of(layer)]);
    });
  }

  /// Moves share the ranks' links evenly at best.
  [[nodiscard]] double time_worth_a_slot() const {
    const double seconds_saved_per_time = policy_.seconds_per_load * policy_.times_repeated;
    if (seconds_saved_per_time == 0.0 || policy_.bandwidth_gbps == 0.0) return 0.0;
    return static_cast<double>(policy_.bytes_per_slot) / (policy_.bandwidth_gbps * 1e9) /
           shape_.config.num_ranks / seconds_saved_per_time;
  }

  [[nodiscard]] static bool changes(const std::vector<std::size_t>& chosen) {
    return std::any_of(chosen.begin(), chosen.end(), [](std::size_t option) { return option > 0; });
  }

  [[nodiscard]] PlacementPlan apply(const std::vector<std::size_t>& chosen) const {
    PlacementPlan plan;
    double saved = 0.0;
    for (std::size_t layer = 0; layer < options_.size(); ++layer) {
      const LayerProblem problem = shape_.problem(loads_.row(static_cast<int64_t>(layer)));
      const ExpertPlacement& before = in_force_[layer];
      const std::vector<int32_t> slots = options_[layer].slots_of(
          options_[layer].options[chosen[layer]], before.slot_to_expert(), problem.slots_per_rank);
      PlannedLayer planned{.placement = shape_.placement(slots),
                           .max_over_mean = over_mean(problem, slots),
                           .max_over_mean_before = over_mean(problem, before.slot_to_expert()),
                           .moved_slots = stats::count_moved(before.slot_to_expert(), slots)};
      saved += stats::longest_time(problem, before.slot_to_expert()) -
               stats::longest_time(problem, slots);
      plan.moved_slots += planned.moved_slots;
      const auto moves =
          schedule_moves(before, planned.placement, static_cast<int32_t>(layer),
                         policy_.bytes_per_slot, shape_.config.num_ranks / shape_.config.num_nodes);
      plan.moves.insert(plan.moves.end(), moves.begin(), moves.end());
      plan.layers.push_back(std::move(planned));
    }
    plan.gain_seconds = saved * policy_.seconds_per_load * policy_.times_repeated;
    if (changes(chosen)) plan.cost_seconds = policy_.pause_seconds;
    if (policy_.bandwidth_gbps > 0.0) {
      plan.cost_seconds +=
          static_cast<double>(busiest_rank_bytes(plan.moves, shape_.config.num_ranks)) /
          (policy_.bandwidth_gbps * 1e9);
    }
    return plan;
  }

  const Shape& shape_;
  MatrixView<const double> loads_;
  std::span<const ExpertPlacement> in_force_;
  const MigrationPolicy& policy_;
  int64_t most_moved_ = 0;
  double samples_per_load_ = 0.0;
  std::vector<LayerOptions> options_;
  std::vector<double> min_time_per_slot_;
};

}  // namespace

PlacementPlan plan_placement(const PlacementPlannerConfig& config, MatrixView<const double> loads) {
  validate(config);
  stats::check_loads(loads, config.num_experts);
  const Shape shape(config);
  std::vector<std::vector<int32_t>> slots(index_of(loads.rows));
  std::vector<double> ratios(index_of(loads.rows));
  stats::for_each_layer(loads.rows, config.num_threads, [&](int64_t layer) {
    const LayerProblem problem = shape.problem(loads.row(layer));
    slots[index_of(layer)] = shape.place(problem);
    ratios[index_of(layer)] = over_mean(problem, slots[index_of(layer)]);
  });
  PlacementPlan plan;
  for (std::size_t layer = 0; layer < slots.size(); ++layer) {
    plan.layers.push_back({.placement = shape.placement(slots[layer]),
                           .max_over_mean = ratios[layer],
                           .max_over_mean_before = ratios[layer]});
  }
  return plan;
}

PlacementPlan replan_placement(const PlacementPlannerConfig& config, MatrixView<const double> loads,
                               std::span<const ExpertPlacement> in_force,
                               const MigrationPolicy& policy) {
  validate(config);
  validate(policy);
  stats::check_loads(loads, config.num_experts);
  stats::check_in_force(config, in_force, loads.rows);
  const Shape shape(config);
  return Change(shape, loads, in_force, policy).plan();
}

double max_over_mean(const ExpertPlacement& placement, VectorView<const double> loads,
                     std::span<const double> rank_speeds) {
  stats::check_speeds(rank_speeds, placement.num_ranks());
  stats::check_loads({loads.data, 1, loads.size}, placement.num_experts());
  double longest = 0.0;
  double speeds = 0.0;
  double total = 0.0;
  for (int32_t rank = 0; rank < placement.num_ranks(); ++rank) {
    double load = 0.0;
    const std::span<const int32_t> offsets = placement.slot_offsets();
    for (int32_t slot = offsets[index_of(rank)]; slot < offsets[index_of(rank) + 1]; ++slot) {
      const int32_t expert = placement.slot_to_expert()[index_of(slot)];
      if (expert < 0) continue;
      const std::span<const int32_t> copies = placement.replica_offsets();
      load += loads[expert] / (copies[index_of(expert) + 1] - copies[index_of(expert)]);
    }
    const double speed = rank_speeds.empty() ? 1.0 : rank_speeds[index_of(rank)];
    longest = std::max(longest, load / speed);
    speeds += speed;
    total += load;
  }
  return total > 0.0 ? longest / (total / speeds) : 1.0;
}

}  // namespace switchyard

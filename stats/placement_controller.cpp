#include "switchyard/placement_controller.h"

#include <cmath>
#include <utility>

#include "stats/index_of.h"
#include "stats/placement_checks.h"
#include "stats/refuse.h"

namespace switchyard {

using stats::check_range;
using stats::index_of;
using stats::refuse;

namespace {

constexpr int32_t kMaxLayers = 1 << 16;

}  // namespace

void validate(const PlacementControllerConfig& config) {
  validate(config.planner);
  validate(config.policy);
  check_range("num_layers", config.num_layers, 1, kMaxLayers);
  if (!(config.decay >= 0.0 && config.decay < 1.0)) {
    refuse("decay is ", config.decay, ", must be in [0, 1)");
  }
}

ExpertPlacement initial_placement(const PlacementPlannerConfig& config) {
  validate(config);
  const int32_t per_rank = config.num_slots / config.num_ranks;
  std::vector<int32_t> slots(index_of(config.num_slots), -1);
  // Experts of a rank, then experts that start where the rank's own end.
  for (int32_t rank = 0; rank < config.num_ranks; ++rank) {
    const auto first_of = [&](int64_t r) {
      return static_cast<int32_t>(r * config.num_experts / config.num_ranks);
    };
    for (int32_t i = 0; i < per_rank && i < config.num_experts; ++i) {
      slots[index_of(int64_t{rank} * per_rank + i)] = (first_of(rank) + i) % config.num_experts;
    }
  }
  return ExpertPlacement::from_slots(config.num_experts, config.num_ranks, slots);
}

PlacementController::PlacementController(PlacementControllerConfig config,
                                         std::vector<ExpertPlacement> in_force)
    : config_(std::move(config)), in_force_(std::move(in_force)) {
  validate(config_);
  if (in_force_.empty()) {
    in_force_.assign(index_of(config_.num_layers), initial_placement(config_.planner));
  }
  stats::check_in_force(config_.planner, in_force_, config_.num_layers);
  window_.resize(index_of(config_.num_layers) * index_of(config_.planner.num_experts));
  loads_.resize(window_.size());
}

MatrixView<const double> PlacementController::loads() const {
  return {loads_.data(), config_.num_layers, config_.planner.num_experts};
}

void PlacementController::record(int32_t layer, VectorView<const int64_t> tokens_per_expert) {
  check_range("layer", layer, 0, config_.num_layers - 1);
  const int32_t num_experts = config_.planner.num_experts;
  if (tokens_per_expert.size != num_experts) {
    refuse("tokens_per_expert has ", tokens_per_expert.size, " elements, must have ", num_experts);
  }
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    if (tokens_per_expert[expert] >= 0) continue;
    refuse("tokens_per_expert[", expert, "] is ", tokens_per_expert[expert], ", must be 0 or more");
  }
  double* window = window_.data() + index_of(layer) * index_of(num_experts);
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    window[expert] += static_cast<double>(tokens_per_expert[expert]);
  }
}

void PlacementController::end_window() {
  for (std::size_t i = 0; i < loads_.size(); ++i) {
    loads_[i] = loads_[i] * config_.decay + window_[i];
    window_[i] = 0.0;
  }
}

PlacementPlan PlacementController::replan() const {
  MigrationPolicy policy = config_.policy;
  // A sum of counts n_i faded by d^i has the variance of d^2i n_i: 1 + d times as certain.
  if (!policy.samples_per_load) policy.samples_per_load = 1.0 + config_.decay;
  return replan_placement(config_.planner, loads(), in_force_, policy);
}

void PlacementController::adopt(std::vector<ExpertPlacement> placements) {
  stats::check_in_force(config_.planner, placements, config_.num_layers);
  in_force_ = std::move(placements);
}

}  // namespace switchyard

// Placement while a model serves: loads that fade, and the placement in force.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/placement_planner.h"

namespace switchyard {

struct PlacementControllerConfig {
  PlacementPlannerConfig planner{};
  MigrationPolicy policy{};
  int32_t num_layers = 0;  ///< 1 or more
  /// Of the loads from window to window, in [0, 1): 0 plans from the last window alone.
  double decay = 0.8;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const PlacementControllerConfig& config);

/// Adds up what experts get, window by window, and plans from it. One thread at a time.
class PlacementController {
 public:
  /// @param in_force  a layer each, as for replan_placement(); empty: initial_placement().
  /// @throws InvalidArgument  when `config` or a placement is refused.
  explicit PlacementController(PlacementControllerConfig config,
                               std::vector<ExpertPlacement> in_force = {});

  [[nodiscard]] const PlacementControllerConfig& config() const { return config_; }
  /// [num_layers]
  [[nodiscard]] const std::vector<ExpertPlacement>& in_force() const { return in_force_; }
  /// [num_layers, num_experts] of the windows that ended, the last one in full, each one before it
  /// `decay` times as much.
  [[nodiscard]] MatrixView<const double> loads() const;

  /// Adds assignments to the window.
  /// @param tokens_per_expert  [num_experts], each 0 or more, host memory.
  /// @throws InvalidArgument  for a layer out of range, another size or a count below 0: nothing is
  ///                          added then.
  void record(int32_t layer, VectorView<const int64_t> tokens_per_expert);

  /// Lets older windows fade and adds this one.
  void end_window();

  /// A change of the placement in force for the loads so far. Where the policy says nothing of
  /// samples_per_load, the loads are taken for counts, which fading makes a little more certain
  /// than their sum says. It is not in force before adopt().
  [[nodiscard]] PlacementPlan replan() const;

  /// Puts placements in force, of all layers.
  /// @throws InvalidArgument  when one is of another shape; the old ones stay then.
  void adopt(std::vector<ExpertPlacement> placements);

 private:
  PlacementControllerConfig config_;
  std::vector<ExpertPlacement> in_force_;
  std::vector<double> window_;  ///< [num_layers, num_experts]
  std::vector<double> loads_;   ///< [num_layers, num_experts]
};

/// A placement without knowledge of loads: every rank holds a block of consecutive experts, which
/// overlap where there are more slots than experts. Never two copies on a rank.
/// @throws InvalidArgument  when `config` is refused.
ExpertPlacement initial_placement(const PlacementPlannerConfig& config);

}  // namespace switchyard

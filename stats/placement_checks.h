// What the planner's front door refuses.
#pragma once

#include <span>

#include "switchyard/placement_planner.h"

namespace switchyard::stats {

/// @throws InvalidArgument  unless `loads` is [1 or more, num_experts], finite and 0 or more.
void check_loads(MatrixView<const double> loads, int32_t num_experts);

/// @throws InvalidArgument  unless there is a placement of the config's shape for each layer.
void check_in_force(const PlacementPlannerConfig& config, std::span<const ExpertPlacement> in_force,
                    int64_t num_layers);

/// @throws InvalidArgument  unless speeds are `num_ranks` or none, each finite and above 0.
void check_speeds(std::span<const double> rank_speeds, int32_t num_ranks);

}  // namespace switchyard::stats

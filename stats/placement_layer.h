// One layer's experts onto ranks, from nothing: how many copies each gets, and where they live.
#pragma once

#include <cstdint>
#include <vector>

#include "stats/placement_state.h"

namespace switchyard::stats {

/// Any expert on any rank, never twice on one unless the problem allows it.
/// [num_ranks * slots_per_rank], -1 an empty slot.
/// @param problem  with room for every expert.
std::vector<int32_t> place_globally(const LayerProblem& problem);

/// Experts stay together in groups of consecutive ids, as many groups on each node; copies stay in
/// their expert's node.
///
/// @param problem     ranks_per_node is above 0 and divides the ranks.
/// @param num_groups  divides the experts and is a multiple of the nodes.
std::vector<int32_t> place_in_nodes(const LayerProblem& problem, int32_t num_groups);

}  // namespace switchyard::stats

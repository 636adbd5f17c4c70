// One layer's experts onto ranks, from nothing: how many copies each gets, and where they live.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stats/placement_search.h"

namespace switchyard::stats {

/// Copies of each expert, as many as there are slots for: the next one always for the expert whose
/// copies carry most, equal ones the lower id, without load the one of fewer copies. So the
/// heaviest copy is as light as it can be.
/// @param most_copies  that one expert may have; slots beyond them stay empty.
std::vector<int32_t> replica_counts(std::span<const double> loads, int64_t num_slots,
                                    int32_t most_copies);

/// Any expert on any rank, never twice on one. [num_ranks * slots_per_rank], -1 an empty slot.
/// @param problem  with room for every expert.
std::vector<int32_t> place_globally(const LayerProblem& problem);

/// Experts stay together in groups of consecutive ids, as many groups on each node; copies stay in
/// their expert's node.
///
/// @param problem     ranks_per_node is above 0 and divides the ranks.
/// @param num_groups  divides the experts and is a multiple of the nodes.
std::vector<int32_t> place_in_nodes(const LayerProblem& problem, int32_t num_groups);

}  // namespace switchyard::stats

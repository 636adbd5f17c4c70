// The placement that serving engines use today, written from its published description: the
// baseline of benchmarks and tests.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard::bench {

/// DeepSeek's EPLB: the next copy goes to the expert whose copies carry most; then copies, heaviest
/// first, each to the lightest rank with room. Where groups divide by nodes, groups are packed so
/// onto nodes first, and every node is treated by itself. A rank may hold an expert twice.
///
/// @param loads  [num_experts] of a layer.
/// @return [num_slots] the expert of each slot; slots belong to ranks in blocks.
std::vector<int32_t> place_plainly(std::span<const double> loads, int32_t num_ranks,
                                   int32_t num_slots, int32_t num_nodes = 1,
                                   int32_t num_groups = 1);

/// Slowest rank's load over the mean, copies sharing their expert's load evenly.
double plain_max_over_mean(std::span<const double> loads, std::span<const int32_t> slot_to_expert,
                           int32_t num_ranks);

/// Slots whose expert another slot of the same rank holds too.
int32_t count_twins(std::span<const int32_t> slot_to_expert, int32_t num_ranks);

}  // namespace switchyard::bench

// A last resort for layers where steps that help end too early.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stats/placement_state.h"

namespace switchyard::stats {

/// Changes slots by chance, worse ones among them at first and fewer and fewer later: threshold
/// accepting (Dueck and Scheuer, Journal of Computational Physics 90, 1990). The same seed gives
/// the same placement. Slots may end empty.
///
/// @param start      [num_slots] without a second copy of an expert on a rank.
/// @param wanted     stops as soon as the slowest rank takes no longer.
/// @param num_steps  1 or more.
/// @return the best placement met.
std::vector<int32_t> anneal(const LayerProblem& problem, std::span<const int32_t> start,
                            double wanted, int64_t num_steps, uint64_t seed);

}  // namespace switchyard::stats

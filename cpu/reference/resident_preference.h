// The preference of resident experts, done plainly.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/reference/row_scores.h"
#include "switchyard/router.h"

namespace switchyard::cpu::reference {

/// Lets resident experts take the place of others in `chosen`, as ResidencyPreference says.
///
/// @param candidates  the experts that the row may choose from; `chosen` are the best of them.
/// @return the mass that is given up.
float prefer_residents(const RouterConfig& config, const ResidencyPreference& preference,
                       const RowScores& row, const std::vector<int32_t>& candidates,
                       std::vector<int32_t>& chosen);

}  // namespace switchyard::cpu::reference

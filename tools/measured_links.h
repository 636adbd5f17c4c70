// What alltoall_perf has measured, for predictions.
#pragma once

#include <string>
#include <vector>

#include "switchyard/exchange_cost.h"

namespace switchyard::tools {

/// @param path  that `alltoall_perf -J` wrote.
/// @throws IoError  when it holds no results.
std::vector<ExchangeTiming> read_measured_links(const std::string& path);

}  // namespace switchyard::tools

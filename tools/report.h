// `run --report`: one page that needs nothing but itself.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tools/run_results.h"

namespace switchyard::tools {

std::string report_page(const RunResults& results);

/// A page with `data`, and the version of this program, where it says {{run}}.
std::string page_with(std::string_view page, nlohmann::ordered_json data);

}  // namespace switchyard::tools

// `simulate --report`: one page that needs nothing but itself.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace switchyard::tools {

/// @param simulation  what `simulate --json` prints.
std::string simulation_page(nlohmann::ordered_json simulation);

}  // namespace switchyard::tools

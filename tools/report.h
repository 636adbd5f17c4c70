// `run --report`: one page that needs nothing but itself.
#pragma once

#include <string>

#include "tools/run_results.h"

namespace switchyard::tools {

std::string report_page(const RunResults& results);

}  // namespace switchyard::tools

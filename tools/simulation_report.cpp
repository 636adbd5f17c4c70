#include "tools/simulation_report.h"

#include <utility>

#include "pages.h"
#include "tools/report.h"

namespace switchyard::tools {

std::string simulation_page(nlohmann::ordered_json simulation) {
  return page_with(kSimulationPage, std::move(simulation));
}

}  // namespace switchyard::tools

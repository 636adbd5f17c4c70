#include "tools/report.h"

#include "report_page.h"
#include "switchyard/build_info.h"

namespace switchyard::tools {

std::string report_page(const RunResults& results) {
  static constexpr std::string_view kPlace = "{{run}}";
  using Json = nlohmann::ordered_json;
  Json run = to_json(results);
  run["version"] = build_info().version;
  std::string data = run.dump(-1, ' ', true, Json::error_handler_t::replace);
  // Names from the trace must not end the script that holds them.
  for (std::size_t at = 0; (at = data.find('<', at)) != data.npos;) data.replace(at, 1, "\\u003c");
  std::string page(kReportPage);
  return page.replace(page.find(kPlace), kPlace.size(), data);
}

}  // namespace switchyard::tools

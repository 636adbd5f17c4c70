#include "tools/report.h"

#include "pages.h"
#include "switchyard/build_info.h"

namespace switchyard::tools {

std::string page_with(std::string_view page, nlohmann::ordered_json data) {
  static constexpr std::string_view kPlace = "{{run}}";
  data["version"] = build_info().version;
  std::string text = data.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
  // Names from the trace must not end the script that holds them.
  for (std::size_t at = 0; (at = text.find('<', at)) != text.npos;) text.replace(at, 1, "\\u003c");
  std::string filled(page);
  return filled.replace(filled.find(kPlace), kPlace.size(), text);
}

std::string report_page(const RunResults& results) {
  return page_with(kReportPage, to_json(results));
}

}  // namespace switchyard::tools

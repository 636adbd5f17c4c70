#include "tools/measured_links.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "switchyard/errors.h"

namespace switchyard::tools {

std::vector<ExchangeTiming> read_measured_links(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) throw IoError("cannot read " + path);
  std::vector<ExchangeTiming> timings;
  try {
    const auto json = nlohmann::json::parse(stream);
    const auto num_ranks = static_cast<int32_t>(json.at("config").at("devices").size());
    for (const auto& result : json.at("results")) {
      const auto bytes = result.at("size").get<int64_t>();
      const double seconds = result.at("out_of_place").at("time").get<double>() * 1e-6;
      if (bytes > 0) timings.push_back({num_ranks, bytes, seconds});
    }
  } catch (const nlohmann::json::exception& error) {
    throw IoError(path + " holds no results of alltoall_perf: " + error.what());
  }
  if (timings.empty()) throw IoError(path + " holds no results of alltoall_perf");
  return timings;
}

}  // namespace switchyard::tools

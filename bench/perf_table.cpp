#include "bench/perf_table.h"

#include <cstdio>
#include <ctime>
#include <utility>

#include "switchyard/build_info.h"

namespace switchyard::bench {
namespace {

/// As many digits as a column of nccl-tests shows.
std::string number(double value, int width) {
  int digits = 1;  // before the point
  for (double limit = 10; value >= limit && digits < width; limit *= 10) ++digits;
  const int decimals = digits < width - 2 ? 2 : digits < width - 1 ? 1 : 0;
  char text[64];
  std::snprintf(text, sizeof(text), "%*.*f", width, decimals, value);
  return text;
}

std::string now() {
  const std::time_t time = std::time(nullptr);
  std::tm parts{};
  ::localtime_r(&time, &parts);
  char text[64];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

void print_titles(bool shows_raw) {
  std::printf(
      "#                                                              out-of-place                "
      "       in-place          %s\n"
      "#       size         count      type   redop    root     time   algbw   busbw  #wrong     "
      "time   algbw   busbw  #wrong %s\n"
      "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)             "
      "(us)  (GB/s)  (GB/s)         %s\n",
      shows_raw ? "    MPI_Alltoallv" : "", shows_raw ? "   time  ratio" : "",
      shows_raw ? "   (us)" : "");
}

}  // namespace

PerfTable::PerfTable(std::string program, const PerfOptions& options, const std::string& transport,
                     const std::vector<PerfDevice>& devices,
                     const std::vector<std::string>& arguments, bool shows_raw)
    : program_(std::move(program)), min_bandwidth_(options.min_bandwidth), shows_raw_(shows_raw) {
  if (!options.json_path.empty()) file_.emplace(options.json_path);
  const std::string version = "switchyard " + build_info().version;
  const bool multiplies = options.step_factor > 1;
  std::printf("# %s version %s transport=%s ranks=%zu\n", program_.c_str(), version.c_str(),
              transport.c_str(), devices.size());
  std::printf("# Collective test starting: %s\n", program_.c_str());
  std::printf(
      "# nThread %lld nGpus %lld minBytes %lld maxBytes %lld step: %lld(%s) warmup iters: %lld "
      "iters: %lld agg iters: %lld validation: %lld graph: 0\n#\n",
      static_cast<long long>(options.threads), static_cast<long long>(options.ranks_per_thread),
      static_cast<long long>(options.min_bytes), static_cast<long long>(options.max_bytes),
      static_cast<long long>(multiplies ? options.step_factor : options.step_bytes),
      multiplies ? "factor" : "bytes", static_cast<long long>(options.warmup),
      static_cast<long long>(options.iterations), static_cast<long long>(options.aggregated),
      static_cast<long long>(options.checks));
  std::printf("# Using devices\n");
  nlohmann::json json_devices = nlohmann::json::array();
  for (std::size_t rank = 0; rank < devices.size(); ++rank) {
    const PerfDevice& device = devices[rank];
    std::printf("#  Rank %2zu Group  0 Pid %6lld on %10s device %2lld [%s]\n", rank,
                static_cast<long long>(device.process_id), device.host.c_str(),
                static_cast<long long>(device.index), device.name.c_str());
    json_devices.push_back({{"rank", rank},
                            {"group", 0},
                            {"pid", device.process_id},
                            {"hostname", device.host},
                            {"device", device.index},
                            {"device_name", device.name}});
  }
  std::printf("#\n");
  print_titles(shows_raw_);
  json_ = {{"version", 3},
           {"start_time", now()},
           {"args", arguments},
           {"nccl_version", version},
           {"config",
            {{"nthreads", options.threads},
             {"ngpus", options.ranks_per_thread},
             {"minimum_bytes", options.min_bytes},
             {"maximum_bytes", options.max_bytes},
             {"step_bytes", options.step_bytes},
             {"step_factor", options.step_factor},
             {"warmup_iters", options.warmup},
             {"iterations", options.iterations},
             {"aggregated_iterations", options.aggregated},
             {"validation", options.checks},
             {"transport", transport},
             {"devices", json_devices}}},
           {"results", nlohmann::json::array()}};
  std::fflush(stdout);
}

void PerfTable::add(const PerfResult& result) {
  const int64_t wrong = result.wrong.value_or(0);
  num_failed_ += wrong > 0 ? 1 : 0;
  bandwidth_sum_ += result.bus_gbps;
  ++num_results_;
  std::printf("%12lli  %12lli  %8s  %6s  %6s", static_cast<long long>(result.bytes),
              static_cast<long long>(result.count), result.type.c_str(), "none", "-1");
  std::printf("  %7s  %6s  %6s", number(result.time_us, 7).c_str(),
              number(result.algorithm_gbps, 6).c_str(), number(result.bus_gbps, 6).c_str());
  if (result.wrong) {
    std::printf("  %6g", static_cast<double>(wrong));
  } else {
    std::printf("  %6s", "N/A");
  }
  // An exchange between ranks' own memory cannot be in place.
  std::printf("  %7s  %6s  %6s  %6s", "N/A", "N/A", "N/A", "N/A");
  if (shows_raw_ && result.raw_us) {
    std::printf("  %7s  %5.3f", number(*result.raw_us, 7).c_str(), result.time_us / *result.raw_us);
  } else if (shows_raw_) {
    std::printf("  %7s  %5s", "N/A", "N/A");
  }
  std::printf("\n");
  std::fflush(stdout);
  nlohmann::json row = {{"size", result.bytes},
                        {"count", result.count},
                        {"type", result.type},
                        {"redop", "none"},
                        {"root", -1},
                        {"out_of_place",
                         {{"time", result.time_us},
                          {"alg_bw", result.algorithm_gbps},
                          {"bus_bw", result.bus_gbps},
                          {"nwrong", nullptr}}},
                        {"in_place", nullptr}};
  if (result.wrong) row["out_of_place"]["nwrong"] = wrong;
  if (result.raw_us) row["mpi_alltoallv_time"] = *result.raw_us;
  json_["results"].push_back(std::move(row));
}

bool PerfTable::finish() {
  const double average =
      num_results_ > 0 ? bandwidth_sum_ / static_cast<double>(num_results_) : 0.0;
  const bool is_right = num_failed_ == 0;
  const bool is_fast = average >= 0.9 * min_bandwidth_;
  std::printf("# Out of bounds values : %lld %s\n", static_cast<long long>(num_failed_),
              is_right ? "OK" : "FAILED");
  std::printf("# Avg bus bandwidth    : %g %s\n", average, is_fast ? "" : "FAILED");
  std::printf("#\n# Collective test concluded: %s\n#\n", program_.c_str());
  std::fflush(stdout);
  if (file_) {
    json_["out_of_bounds"] = {{"count", num_failed_}, {"okay", is_right}};
    json_["average_bus_bandwidth"] = {{"bandwidth", average}, {"okay", is_fast}};
    json_["end_time"] = now();
    file_->write(json_.dump(2) + "\n");
    file_->commit();
  }
  return is_right && is_fast;
}

}  // namespace switchyard::bench

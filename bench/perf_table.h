// The table that users of nccl-tests know, and its JSON form.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/perf_options.h"
#include "bench/perf_ranks.h"
#include "switchyard/output_file.h"

namespace switchyard::bench {

/// What was measured of one size.
struct PerfResult {
  int64_t bytes = 0;
  int64_t count = 0;  ///< elements for each rank
  std::string type;
  double time_us = 0;
  double algorithm_gbps = 0;
  double bus_gbps = 0;
  std::optional<int64_t> wrong;  ///< elements; none: not checked
  std::optional<double> raw_us;  ///< of MPI's own call, beside this one
};

/// Printed by one rank, as results come.
class PerfTable {
 public:
  /// Prints what comes before the results.
  /// @param program   "alltoall_perf".
  /// @param arguments  the command line, for the JSON file.
  /// @throws IoError  when the JSON file cannot be made.
  PerfTable(std::string program, const PerfOptions& options, const std::string& transport,
            const std::vector<PerfDevice>& devices, const std::vector<std::string>& arguments,
            bool shows_raw);

  void add(const PerfResult& result);
  /// Prints what comes after them and writes the JSON file.
  /// @return whether all checks held, and the bandwidth that was asked for was there.
  bool finish();

 private:
  std::string program_;
  double min_bandwidth_;
  bool shows_raw_;
  nlohmann::json json_;
  std::optional<OutputFile> file_;
  int64_t num_failed_ = 0;
  double bandwidth_sum_ = 0;
  int64_t num_results_ = 0;
};

}  // namespace switchyard::bench

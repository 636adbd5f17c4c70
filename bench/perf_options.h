// The command line that users of nccl-tests know.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::bench {

struct PerfOptions {
  int64_t min_bytes = 32 << 20;
  int64_t max_bytes = 32 << 20;
  int64_t step_bytes = 1 << 20;
  int64_t step_factor = 1;  ///< 2 and more: sizes are multiplied, not added to
  int64_t iterations = 20;
  int64_t aggregated = 1;  ///< calls an iteration
  int64_t warmup = 1;
  int64_t cycles = 1;  ///< of the whole sweep; 0: without end
  int64_t checks = 1;
  std::string datatype = "float";
  int64_t threads = 1;
  int64_t ranks_per_thread = 1;
  int64_t timeout_s = 0;       ///< of a wait; 0: the communicator's own
  int64_t staging_bytes = -1;  ///< a rank's; -1: the communicator's own
  int64_t average = 1;         ///< over ranks: 0 rank 0's, 1 mean, 2 least, 3 most
  bool blocking = false;
  bool cpu_time = false;
  std::string json_path;
  std::string transport;  ///< "in_process", "mpi", "nccl", or empty for what the launcher suggests
  double min_bandwidth = 0;

  /// The sizes of a sweep, in bytes.
  [[nodiscard]] std::vector<int64_t> sizes() const;
};

/// @throws InvalidArgument  unless `text` is a number with or without K, M or G, which are binary.
int64_t parse_bytes(const std::string& text);

/// Adds the options; they stay bound to `options`.
void add_perf_options(CLI::App& app, PerfOptions& options);

/// @throws InvalidArgument  for a combination that makes no sense.
void check_perf_options(const PerfOptions& options);

}  // namespace switchyard::bench

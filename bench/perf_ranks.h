// The ranks of a measurement: threads of this process, or the processes that mpirun started.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/perf_options.h"
#include "switchyard/communicator.h"

namespace switchyard {
class MpiRuntime;
}

namespace switchyard::bench {

/// This process in its job; lives as long as main().
class PerfProcess {
 public:
  /// Starts MPI where a launcher of MPI's started this.
  PerfProcess();
  ~PerfProcess();
  PerfProcess(const PerfProcess&) = delete;
  PerfProcess& operator=(const PerfProcess&) = delete;

  /// Whether this process speaks for all.
  [[nodiscard]] bool is_first() const;

  /// Runs `body` on every rank that the options ask for, each on a thread or in a process.
  /// @throws InvalidArgument, Unavailable  for options that cannot be served; what `body` throws.
  void run(const PerfOptions& options, const std::function<void(Communicator&)>& body);

 private:
  void run_on_host(const PerfOptions& options, bool uses_mpi,
                   const std::function<void(Communicator&)>& body);

  std::unique_ptr<MpiRuntime> runtime_;
};

/// Where a rank runs.
struct PerfDevice {
  int64_t process_id = 0;
  std::string host;
  int64_t index = 0;
  std::string name;  ///< of the GPU, or "host memory"
};

/// Of all ranks, on each.
std::vector<PerfDevice> gather_devices(Communicator& communicator);

/// The ranks' values in order.
std::vector<double> gather_values(Communicator& communicator, double mine);

/// What -a makes of them.
double combine(const std::vector<double>& values, int64_t average);

}  // namespace switchyard::bench

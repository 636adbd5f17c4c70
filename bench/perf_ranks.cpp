#include "bench/perf_ranks.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "bench/gpus.h"
#include "switchyard/errors.h"
#include "switchyard/in_process_communicator.h"
#ifdef SWITCHYARD_MPI
#include "switchyard/mpi_communicator.h"
#else
namespace switchyard {
class MpiRuntime {};
}  // namespace switchyard
#endif

namespace switchyard::bench {
namespace {

CommunicatorOptions communicator_options(const PerfOptions& options) {
  CommunicatorOptions made;
  if (options.timeout_s > 0) made.timeout_ms = options.timeout_s * 1000;
  if (options.staging_bytes >= 0) made.staging_bytes = options.staging_bytes;
  return made;
}

void run_threads(const PerfOptions& options, const std::function<void(Communicator&)>& body) {
  const int64_t size = options.threads * options.ranks_per_thread;
  constexpr int64_t kMaxThreads = 1024;
  if (size > kMaxThreads) {
    throw InvalidArgument("-t times -g is " + std::to_string(size) + ", must be at most " +
                          std::to_string(kMaxThreads));
  }
  run_ranks_as_threads(static_cast<int>(size), body, communicator_options(options));
}

}  // namespace

#ifdef SWITCHYARD_MPI
PerfProcess::PerfProcess() {
  if (is_launched_by_mpi()) runtime_ = std::make_unique<MpiRuntime>();
}

bool PerfProcess::is_first() const { return !runtime_ || runtime_->rank() == 0; }
#else
PerfProcess::PerfProcess() = default;

bool PerfProcess::is_first() const { return true; }
#endif

PerfProcess::~PerfProcess() = default;

void PerfProcess::run(const PerfOptions& options, const std::function<void(Communicator&)>& body) {
  if (options.transport == "nccl") {
    // A process without a GPU must not leave the others waiting, who may have one.
    if (!runtime_) check_gpus();
    return run_on_host(options, runtime_ != nullptr, [&](Communicator& bootstrap) {
      run_on_gpu(bootstrap, communicator_options(options), body);
    });
  }
  run_on_host(options, options.transport.empty() ? runtime_ != nullptr : options.transport == "mpi",
              body);
}

void PerfProcess::run_on_host(const PerfOptions& options, bool uses_mpi,
                              const std::function<void(Communicator&)>& body) {
  if (!uses_mpi) {
#ifdef SWITCHYARD_MPI
    if (runtime_ && runtime_->size() > 1) {
      throw InvalidArgument("--transport in_process has its ranks in one process, not in the " +
                            std::to_string(runtime_->size()) + " that were launched");
    }
#endif
    return run_threads(options, body);
  }
#ifdef SWITCHYARD_MPI
  if (options.threads * options.ranks_per_thread != 1) {
    throw InvalidArgument("-t and -g must be 1 with MPI: a process is one rank");
  }
  if (!runtime_) runtime_ = std::make_unique<MpiRuntime>();
  const std::unique_ptr<Communicator> communicator =
      make_mpi_world_communicator(communicator_options(options));
  body(*communicator);
#else
  throw Unavailable("--transport mpi: this build has no MPI");
#endif
}

std::vector<PerfDevice> gather_devices(Communicator& communicator) {
  struct Fixed {
    int64_t process_id = 0;
    char host[64] = "";
    int64_t index = 0;
    char name[64] = "host memory";
  };
  Fixed mine;
  mine.process_id = ::getpid();
  ::gethostname(mine.host, sizeof(mine.host) - 1);
  if (communicator.backend() == Backend::kCuda) {
    const GpuPlace place = current_gpu();
    mine.index = place.index;
    std::snprintf(mine.name, sizeof(mine.name), "%s", place.name.c_str());
  }
  std::vector<Fixed> all(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather("devices", std::as_bytes(std::span(&mine, 1)),
                          std::as_writable_bytes(std::span(all)));
  std::vector<PerfDevice> devices;
  for (const Fixed& device : all)
    devices.push_back({device.process_id, device.host, device.index, device.name});
  return devices;
}

std::vector<double> gather_values(Communicator& communicator, double mine) {
  std::vector<double> all(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather("values", std::as_bytes(std::span(&mine, 1)),
                          std::as_writable_bytes(std::span(all)));
  return all;
}

double combine(const std::vector<double>& values, int64_t average) {
  switch (average) {
    case 0:
      return values.front();
    case 2:
      return *std::min_element(values.begin(), values.end());
    case 3:
      return *std::max_element(values.begin(), values.end());
    default:
      return std::accumulate(values.begin(), values.end(), 0.0) /
             static_cast<double>(values.size());
  }
}

}  // namespace switchyard::bench

// All-to-all of equal counts between ranks, with the command line, the table and the bandwidths of
// nccl-tests. Checks what it times.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <ctime>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "bench/median.h"
#include "bench/perf_options.h"
#include "bench/perf_program.h"
#include "bench/perf_ranks.h"
#include "bench/perf_table.h"
#include "bench/perf_values.h"
#include "bench/rank_memory.h"
#include "switchyard/errors.h"
#ifdef SWITCHYARD_MPI
#include "bench/raw_alltoallv.h"
#endif

namespace switchyard::bench {
namespace {

struct Options : PerfOptions {
  bool raw = false;
};

/// Seconds of the clock, or of this thread on a processor.
double seconds(bool cpu_time) {
  if (!cpu_time) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  std::timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// One rank's memory and measurements.
class Rank {
 public:
  Rank(Communicator& communicator, const Options& options)
      : communicator_(communicator),
        options_(options),
        size_(communicator.size()),
        stream_(communicator.backend()),
        sent_(options.max_bytes, communicator.backend()),
        received_(options.max_bytes, communicator.backend()) {}

  /// @return equal on every rank but for what -a says of times.
  PerfResult measure(const ElementType& type, int64_t bytes) {
    // As nccl-tests: as many elements for each rank as make whole 16 bytes.
    const int64_t count = (bytes / type.size / size_) & ~(16 / type.size - 1);
    PerfResult result;
    result.count = count;
    result.bytes = count * size_ * type.size;
    result.type = type.name;
    block_bytes_ = count * type.size;
    fill_sent(result.bytes, type.size, 0);
    for (int64_t i = 0; i < options_.warmup; ++i) exchange();
    wait();
    double raw_s = 0;
    const double mine_s = options_.raw ? time_beside_raw(raw_s) : time_calls();
    result.time_us = 1e6 * combine(gather_values(communicator_, mine_s), options_.average);
    if (raw_s > 0) {
      result.raw_us = 1e6 * combine(gather_values(communicator_, raw_s), options_.average);
    }
    result.algorithm_gbps = static_cast<double>(result.bytes) / 1e3 / result.time_us;
    result.bus_gbps =
        result.algorithm_gbps * static_cast<double>(size_ - 1) / static_cast<double>(size_);
    if (options_.checks > 0) result.wrong = check(type, count);
    return result;
  }

 private:
  void exchange() {
    communicator_.start_equal_all_to_all("alltoall_perf", sent_.matrix(size_, block_bytes_),
                                         received_.matrix(size_, block_bytes_), 1,
                                         stream_.view());  // a row for each rank
    communicator_.finish_all_to_all(stream_.view());
    if (!options_.blocking) return;
    wait();
    communicator_.barrier("-z");
  }

  /// Until a GPU is done.
  void wait() { communicator_.wait("alltoall_perf", stream_.view()); }

  void fill_sent(int64_t num_bytes, int64_t element_bytes, int64_t repetition) {
    sent_.fill_with(num_bytes, [&](std::span<std::byte> out) {
      fill_elements(out, element_bytes, communicator_.rank(), repetition, 0);
    });
  }

  /// Seconds a call.
  double time_calls() {
    communicator_.barrier("start");
    const double start = seconds(options_.cpu_time);
    for (int64_t i = 0; i < options_.iterations * options_.aggregated; ++i) exchange();
    wait();
    return (seconds(options_.cpu_time) - start) /
           static_cast<double>(options_.iterations * options_.aggregated);
  }

  /// Medians of calls in turn; `raw` stays 0 where MPI cannot move as much.
  double time_beside_raw(double& raw) {
    std::function<void()> call;
#ifdef SWITCHYARD_MPI
    call = raw_alltoallv(sent_.data(), received_.data(), block_bytes_, static_cast<int>(size_));
#endif
    std::vector<double> mine;
    std::vector<double> theirs;
    const auto time = [&](const auto& work, std::vector<double>& times) {
      communicator_.barrier("start");
      const double start = seconds(options_.cpu_time);
      for (int64_t i = 0; i < options_.aggregated; ++i) work();
      times.push_back((seconds(options_.cpu_time) - start) /
                      static_cast<double>(options_.aggregated));
    };
    for (int64_t i = 0; i < options_.iterations; ++i) {
      if (call) time(call, theirs);
      time([this] { exchange(); }, mine);
    }
    if (call) raw = median(theirs);
    return median(mine);
  }

  /// @return wrong elements of all ranks.
  int64_t check(const ElementType& type, int64_t count) {
    int64_t wrong = 0;
    const auto block = static_cast<std::size_t>(count * type.size);
    std::vector<std::byte> memory;
    for (int64_t repetition = 1; repetition <= options_.checks; ++repetition) {
      fill_sent(size_ * block_bytes_, type.size, repetition);
      exchange();
      wait();
      const std::span<const std::byte> received = received_.on_host(size_ * block_bytes_, memory);
      for (int source = 0; source < communicator_.size(); ++source) {
        wrong += count_wrong(received.subspan(static_cast<std::size_t>(source) * block, block),
                             type.size, source, repetition, communicator_.rank() * count);
      }
    }
    double sum = 0;
    for (const double value : gather_values(communicator_, static_cast<double>(wrong))) {
      sum += value;
    }
    return static_cast<int64_t>(sum);
  }

  Communicator& communicator_;
  const Options& options_;
  int64_t size_;
  RankStream stream_;
  RankMemory sent_;
  RankMemory received_;
  int64_t block_bytes_ = 0;
};

/// @return false where this rank speaks for all and a check failed.
bool measure(Communicator& communicator, const Options& options,
             const std::vector<std::string>& arguments) {
  const std::vector<PerfDevice> devices = gather_devices(communicator);
  std::unique_ptr<PerfTable> table;
  if (communicator.rank() == 0) {
    table = std::make_unique<PerfTable>("alltoall_perf", options, communicator.transport(), devices,
                                        arguments, options.raw);
  }
  Rank rank(communicator, options);
  for (int64_t cycle = 0; options.cycles == 0 || cycle < options.cycles; ++cycle) {
    for (const ElementType& type : element_types(options.datatype)) {
      for (const int64_t bytes : options.sizes()) {
        const PerfResult result = rank.measure(type, bytes);
        if (table) table->add(result);
      }
    }
  }
  return !table || table->finish();
}

int run(int argc, char** argv) {
  PerfProcess process;
  Options options;
  CLI::App app{"Times the all-to-all of equal counts between ranks; checks what it times."};
  app.name("alltoall_perf");
  add_perf_options(app, options);
  app.add_flag("--raw", options.raw,
               "MPI_Alltoallv beside, call by call; the times are medians. With MPI only");
  return run_perf_program(app, argc, argv, process, [&] {
    check_perf_options(options);
    static_cast<void>(element_types(options.datatype));
    bool is_right = true;
    process.run(options, [&](Communicator& communicator) {
      if (options.raw && std::string(communicator.transport()) != "mpi") {
        throw InvalidArgument("--raw needs --transport mpi");
      }
      const bool held = measure(communicator, options, {argv, argv + argc});
      if (communicator.rank() == 0) is_right = held;
    });
    return is_right;
  });
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) { return switchyard::bench::run(argc, argv); }

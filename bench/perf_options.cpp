#include "bench/perf_options.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "switchyard/errors.h"

namespace switchyard::bench {
namespace {

[[noreturn]] void refuse_bytes(const std::string& text) {
  throw InvalidArgument("'" + text + "' is no number of bytes, as in 8, 64K, 1.5M or 2G");
}

void add_bytes(CLI::App& app, const std::string& names, int64_t& value, const std::string& text) {
  app.add_option_function<std::string>(
         names, [&value](const std::string& given) { value = parse_bytes(given); }, text)
      ->type_name("BYTES");
}

/// Takes an option of nccl-tests that changes nothing here.
void add_ignored(CLI::App& app, const std::string& names, const std::string& text) {
  app.add_option_function<std::string>(
         names, [](const std::string&) {}, text + "; taken, without effect")
      ->type_name("X");
}

/// Takes an option of nccl-tests only where it is off.
void add_refused(CLI::App& app, const std::string& names, const std::string& text) {
  app.add_option_function<int64_t>(
         names,
         [names, text](int64_t value) {
           if (value != 0) throw InvalidArgument(names + ": there are no " + text + "; must be 0");
         },
         text + ", which are not here; 0 is taken")
      ->type_name("0");
}

}  // namespace

int64_t parse_bytes(const std::string& text) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || end - rest > 1) refuse_bytes(text);
  if (rest != end) {
    switch (*rest) {
      case 'k':
      case 'K':
        value *= 0x1p10;
        break;
      case 'm':
      case 'M':
        value *= 0x1p20;
        break;
      case 'g':
      case 'G':
        value *= 0x1p30;
        break;
      default:
        refuse_bytes(text);
    }
  }
  constexpr double kLimit = 0x1p62;
  if (!(value >= 0 && value < kLimit)) refuse_bytes(text);
  return static_cast<int64_t>(value);
}

std::vector<int64_t> PerfOptions::sizes() const {
  std::vector<int64_t> sizes;
  for (int64_t size = min_bytes; size <= max_bytes;) {
    sizes.push_back(size);
    if (step_factor > 1) {
      if (size > std::numeric_limits<int64_t>::max() / step_factor) break;
      size *= step_factor;
    } else {
      size += step_bytes;
    }
  }
  return sizes;
}

void add_perf_options(CLI::App& app, PerfOptions& options) {
  const auto counted = CLI::NonNegativeNumber;
  add_bytes(app, "-b,--minbytes", options.min_bytes, "smallest size, of all that a rank sends");
  add_bytes(app, "-e,--maxbytes", options.max_bytes, "largest size");
  add_bytes(app, "-i,--stepbytes", options.step_bytes, "from one size to the next");
  app.add_option("-f,--stepfactor", options.step_factor, "between sizes, instead of -i; 1 is off")
      ->check(counted);
  app.add_option("-n,--iters", options.iterations, "timed iterations")->check(counted);
  app.add_option("-m,--agg_iters", options.aggregated, "calls an iteration, one after another")
      ->check(counted);
  app.add_option("-w,--warmup_iters", options.warmup, "calls before those, of each size")
      ->check(counted);
  app.add_option("-N,--run_cycles", options.cycles, "of the whole sweep; 0: without end")
      ->check(counted);
  app.add_option("-c,--check", options.checks, "calls whose result is checked, of each size")
      ->check(counted);
  app.add_option("-d,--datatype", options.datatype, "of the elements, or all");
  app.add_option("-t,--nthreads", options.threads,
                 "threads that are ranks, where processes are not")
      ->check(counted);
  app.add_option("-g,--ngpus", options.ranks_per_thread, "as many ranks for each of -t")
      ->check(counted);
  app.add_option("-z,--blocking", options.blocking, "1: ranks meet after each call");
  app.add_option("-T,--timeout", options.timeout_s, "seconds, of each wait; 0: 30")->check(counted);
  app.add_option("-C,--report_cputime", options.cpu_time,
                 "1: report the thread's time on processors instead of the clock's");
  app.add_option("-a,--average", options.average,
                 "time of rank 0 (0), mean (1), least (2), most (3)")
      ->check(CLI::Range(0, 3));
  app.add_option("-J,--output_file", options.json_path, "JSON file for the results");
  app.add_option("--transport", options.transport,
                 "in_process, mpi, or nccl, whose ranks have a GPU each and are threads or MPI's "
                 "processes; default: mpi where a launcher of MPI's started this")
      ->check(CLI::IsMember({"in_process", "mpi", "nccl"}));
  app.add_option("--min-bandwidth", options.min_bandwidth,
                 "fail where the mean bus bandwidth is below 0.9 of this, GB/s");
  add_ignored(app, "-o,--op", "reduction");
  add_ignored(app, "-r,--root", "root");
  add_ignored(app, "-p,--parallel_init", "start of the ranks, which is parallel anyway");
  add_ignored(app, "-y,--stream_null", "use of CUDA's stream 0");
  add_ignored(app, "-R,--local_register", "registration of memory");
  add_refused(app, "-G,--cudagraph", "graphs on a host");
  add_refused(app, "-I", "statistics of each iteration");
  app.footer(
      "Numbers of bytes may end in K, M or G, which are binary.\n"
      "Exit code 1: a check failed, or another failure. Exit code 2: wrong usage.");
}

void check_perf_options(const PerfOptions& options) {
  const auto check = [](const char* name, int64_t value, int64_t least) {
    if (value < least) {
      throw InvalidArgument(std::string(name) + " is " + std::to_string(value) + ", must be " +
                            std::to_string(least) + " or more");
    }
  };
  check("-n", options.iterations, 1);
  check("-m", options.aggregated, 1);
  check("-t", options.threads, 1);
  check("-g", options.ranks_per_thread, 1);
  check("-e", options.max_bytes, options.min_bytes);
  if (options.step_factor <= 1) check("-i", options.step_bytes, 1);
  if (options.step_factor > 1) check("-b, with -f,", options.min_bytes, 1);
}

}  // namespace switchyard::bench

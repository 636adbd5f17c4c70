#include "bench/median_table.h"

#include <cstdio>
#include <cstring>

#include "bench/median.h"

namespace switchyard::bench {

void MedianReporter::ReportRuns(const std::vector<Run>& runs) {
  for (const Run& run : runs) {
    if (run.run_type != Run::RT_Iteration) continue;
    if (run.error_occurred) {
      error_ = run.run_name.function_name + ": " + run.error_message;
      continue;
    }
    const auto iterations = static_cast<double>(run.iterations);
    const std::string& name = run.run_name.function_name;
    samples_[name].push_back(run.real_accumulated_time * 1e9 / iterations);
    processor_samples_[name].push_back(run.cpu_accumulated_time * 1e9 / iterations);
  }
}

double MedianReporter::median_of(const Samples& samples, const std::string& name) {
  const auto found = samples.find(name);
  if (found == samples.end()) return 0.0;
  return median(found->second);
}

double MedianReporter::nanoseconds(const std::string& name) const {
  return median_of(samples_, name);
}

double MedianReporter::processor_nanoseconds(const std::string& name) const {
  return median_of(processor_samples_, name);
}

namespace {

/// Runs every registered benchmark `repetitions` times, interleaved at random.
void run_interleaved(MedianReporter& reporter, int repetitions, const std::string& filter) {
  std::vector<std::string> words = {"table",
                                    "--benchmark_repetitions=" + std::to_string(repetitions),
                                    "--benchmark_enable_random_interleaving=true",
                                    "--benchmark_min_time=0.005", "--benchmark_filter=" + filter};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  auto argc = static_cast<int>(argv.size());
  benchmark::Initialize(&argc, argv.data());
  benchmark::RunSpecifiedBenchmarks(&reporter);
}

}  // namespace

int run_or_tabulate(int argc, char** argv, int repetitions,
                    const std::function<void(const MedianReporter&)>& print) {
  if (argc > 1 && std::strcmp(argv[1], "--table") == 0) {
    MedianReporter medians;
    run_interleaved(medians, repetitions, argc > 2 ? argv[2] : ".");
    if (!medians.error().empty()) {
      std::fprintf(stderr, "%s\n", medians.error().c_str());
      return 1;
    }
    print(medians);
    return 0;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace switchyard::bench

// A Google Benchmark reporter that keeps the median of interleaved repetitions, for tables.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace switchyard::bench {

class MedianReporter : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override;

  /// Median nanoseconds of one iteration, by benchmark name; 0 where it did not run.
  [[nodiscard]] double nanoseconds(const std::string& name) const;
  /// The same of the benchmark's own thread on its processor, which other work does not lengthen.
  [[nodiscard]] double processor_nanoseconds(const std::string& name) const;
  [[nodiscard]] const std::string& error() const { return error_; }

 private:
  using Samples = std::map<std::string, std::vector<double>>;

  static double median_of(const Samples& samples, const std::string& name);

  Samples samples_;
  Samples processor_samples_;
  std::string error_;
};

/// What main() does once the benchmarks are registered: `--table [FILTER]` runs them interleaved
/// and calls `print`, anything else is for Google Benchmark.
/// @return the exit code.
int run_or_tabulate(int argc, char** argv, int repetitions,
                    const std::function<void(const MedianReporter&)>& print);

}  // namespace switchyard::bench

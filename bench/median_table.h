// A Google Benchmark reporter that keeps the median of interleaved repetitions, for tables.
#pragma once

#include <benchmark/benchmark.h>

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

/// Runs every registered benchmark `repetitions` times, interleaved at random.
void run_interleaved(MedianReporter& reporter, int repetitions, const std::string& filter);

}  // namespace switchyard::bench

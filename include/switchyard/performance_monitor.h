// A report on routing in the log, at an interval.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "switchyard/logging.h"
#include "switchyard/routing_stats.h"

namespace switchyard {

struct PerformanceMonitorConfig {
  int64_t interval_ms = 60'000;  ///< between reports, 1 or more
  /// Of the report's line. The library's log discards what is below kWarning until set_log_level()
  /// says otherwise.
  LogLevel level = LogLevel::kInfo;
};

/// Logs one line every interval, also when nothing has been recorded: what there is in all, and the
/// throughput since the line before. Has a thread of its own, which ends at once with the monitor.
/// Where the log discards the line, none is made.
class PerformanceMonitor {
 public:
  /// @param stats  outlives the monitor and stays where it is
  /// @throws InvalidArgument  for an interval below 1 ms.
  explicit PerformanceMonitor(const RoutingStats& stats,
                              const PerformanceMonitorConfig& config = {});
  ~PerformanceMonitor();
  PerformanceMonitor(const PerformanceMonitor&) = delete;
  PerformanceMonitor& operator=(const PerformanceMonitor&) = delete;

  /// The line as it would be logged now.
  [[nodiscard]] std::string report() const;
  /// RoutingSnapshot::to_json() of now.
  [[nodiscard]] std::string to_json() const;

 private:
  class Reporter;
  std::unique_ptr<Reporter> reporter_;
};

}  // namespace switchyard

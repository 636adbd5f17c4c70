// What a simulation shows to Prometheus while it runs, and afterwards.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "tools/load_windows.h"
#include "tools/placement_simulation.h"

namespace switchyard::tools {

/// Serves what is observed, as docs/metrics.md names it.
class SimulationMetrics {
 public:
  /// @param address  as PrometheusExporter takes it.
  /// @throws InvalidArgument, Unavailable  as PrometheusExporter, and in builds without it.
  SimulationMetrics(const std::string& address, const LoadWindows& windows);
  ~SimulationMetrics();
  SimulationMetrics(const SimulationMetrics&) = delete;
  SimulationMetrics& operator=(const SimulationMetrics&) = delete;

  /// "http://127.0.0.1:9464/metrics"
  [[nodiscard]] std::string url() const;
  void observe(const SimulatedWindow& window);
  /// Starts anew: the numbers are of one policy.
  void reset();

  /// Returns when SIGINT or SIGTERM comes, or after that many seconds.
  static void wait(std::optional<double> seconds);

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace switchyard::tools

// Routing statistics for Prometheus to scrape. In a library of its own, switchyard::prometheus.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "switchyard/routing_stats.h"

namespace switchyard {

struct PrometheusExporterConfig {
  /// Assignments of every expert of every layer too: num_layers * num_experts series.
  bool per_expert = false;
  /// Balancedness is over the tokens of late: of this span of time at least, of twice it at most
  /// where scrapes come that often. 1 or more, by the statistics' clock.
  int64_t balancedness_window_ms = 60'000;
};

/// Answers GET /metrics with the statistics as they are then. The names are those of
/// docs/metrics.md. Threads of its own serve; they read snapshots, which recorders do not notice.
class PrometheusExporter {
 public:
  /// @param address  "HOST:PORT", ":PORT" or "PORT". HOST is an IPv4 address or "localhost";
  ///                 without one only this machine is answered, at 127.0.0.1. Port 0: any free one,
  ///                 see port(). No IPv6: the server in prometheus-cpp, civetweb, is built without
  ///                 it in Debian and Ubuntu.
  /// @param stats    outlives the exporter and stays where it is
  /// @throws InvalidArgument  for an address of another form, or a window below 1 ms.
  /// @throws Unavailable      when the address cannot be listened on, as a port in use, saying why.
  PrometheusExporter(std::string_view address, const RoutingStats& stats,
                     const PrometheusExporterConfig& config = {});
  ~PrometheusExporter();
  PrometheusExporter(const PrometheusExporter&) = delete;
  PrometheusExporter& operator=(const PrometheusExporter&) = delete;

  /// Where it listens, as "127.0.0.1:9464".
  [[nodiscard]] const std::string& address() const;
  [[nodiscard]] int port() const;

 private:
  class Server;
  std::unique_ptr<Server> server_;
};

}  // namespace switchyard

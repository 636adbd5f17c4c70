#include "switchyard/prometheus_exporter.h"

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "stats/metric_families.h"
#include "stats/recent_balancedness.h"
#include "stats/refuse.h"
#include "stats/socket_address.h"
#include "switchyard/logging.h"

namespace switchyard {
namespace {

class Statistics final : public prometheus::Collectable {
 public:
  Statistics(const RoutingStats& stats, const PrometheusExporterConfig& config)
      : stats_(stats),
        per_expert_(config.per_expert),
        balancedness_(config.balancedness_window_ms * 1'000'000) {}

  [[nodiscard]] std::vector<prometheus::MetricFamily> Collect() const override {
    try {
      const std::lock_guard lock(mutex_);
      const RoutingSnapshot snapshot = stats_.snapshot();
      return stats::metric_families(snapshot, balancedness_.update(snapshot, stats_.now_ns()),
                                    per_expert_);
    } catch (const std::exception& error) {
      // The server's thread could do nothing with it.
      log_line(LogLevel::kWarning, std::string("a scrape is left empty: ") + error.what());
      return {};
    }
  }

 private:
  const RoutingStats& stats_;
  const bool per_expert_;
  mutable std::mutex mutex_;  // scrapes may overlap
  mutable stats::RecentBalancedness balancedness_;
};

}  // namespace

class PrometheusExporter::Server {
 public:
  Server(stats::SocketAddress listens_on, const RoutingStats& stats,
         const PrometheusExporterConfig& config)
      : address(std::move(listens_on)),
        text(address.text()),
        statistics_(std::make_shared<Statistics>(stats, config)) {
    try {
      exposer_ = std::make_unique<prometheus::Exposer>(text);
    } catch (const std::exception& error) {
      throw Unavailable("cannot listen on " + text + ": " + error.what());
    }
    exposer_->RegisterCollectable(statistics_);
  }
  /// Asked to end, the server sleeps on until somebody connects, or for two seconds.
  ~Server() {
    std::atomic<bool> has_ended{false};
    std::thread visitor;
    try {
      visitor = std::thread([&] {
        while (!has_ended.load()) {
          stats::knock(address);
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
      });
    } catch (const std::system_error&) {
      // Then it takes the two seconds.
    }
    exposer_.reset();
    has_ended = true;
    if (visitor.joinable()) visitor.join();
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const stats::SocketAddress address;
  const std::string text;

 private:
  std::shared_ptr<Statistics> statistics_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

PrometheusExporter::PrometheusExporter(std::string_view address, const RoutingStats& stats,
                                       const PrometheusExporterConfig& config) {
  stats::check_range("balancedness_window_ms", config.balancedness_window_ms, 1, int64_t{1} << 40);
  stats::SocketAddress wanted = stats::parse_socket_address(address);
  // The server only says that it failed; this says why.
  wanted.port = stats::find_port(wanted);
  server_ = std::make_unique<Server>(std::move(wanted), stats, config);
}

PrometheusExporter::~PrometheusExporter() = default;

const std::string& PrometheusExporter::address() const { return server_->text; }

int PrometheusExporter::port() const { return server_->address.port; }

}  // namespace switchyard

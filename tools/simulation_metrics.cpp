#include "tools/simulation_metrics.h"

#include <csignal>
#include <cstdint>
#include <ctime>

#include "switchyard/errors.h"
#ifdef SWITCHYARD_PROMETHEUS
#include <cmath>

#include "switchyard/prometheus_exporter.h"
#endif

namespace switchyard::tools {

#ifdef SWITCHYARD_PROMETHEUS

class SimulationMetrics::Server {
 public:
  Server(const std::string& address, const LoadWindows& windows)
      : windows_(windows),
        stats_({.num_layers = static_cast<int32_t>(windows.num_layers()),
                .num_experts = windows.num_experts(),
                .num_recorders = 1}),
        exporter_(address, stats_) {}

  [[nodiscard]] std::string url() const { return "http://" + exporter_.address() + "/metrics"; }

  void observe(const SimulatedWindow& window) {
    for (int64_t layer = 0; layer < windows_.num_layers(); ++layer) {
      stats_.record({.layer = static_cast<int32_t>(layer),
                     .num_tokens = windows_.num_tokens(window.window),
                     .tokens_per_expert = {windows_.counts(window.window, layer).data(),
                                           windows_.num_experts()}});
    }
    stats_.record_plan(nanoseconds(window.plan_seconds));
    stats_.record_exchange(window.dispatch_bytes, nanoseconds(window.exchange_seconds));
    if (window.moved_slots > 0) stats_.record_rebalance(window.moved_slots);
  }

  void reset() { stats_.reset(); }

 private:
  static int64_t nanoseconds(double seconds) {
    return static_cast<int64_t>(std::llround(seconds * 1e9));
  }

  const LoadWindows& windows_;
  RoutingStats stats_;
  PrometheusExporter exporter_;
};

#else

class SimulationMetrics::Server {
 public:
  Server(const std::string&, const LoadWindows&) {
    throw Unavailable("--metrics-address: this build has no Prometheus exporter");
  }
  [[nodiscard]] static std::string url() { return ""; }
  static void observe(const SimulatedWindow&) {}
  static void reset() {}
};

#endif

namespace {

sigset_t endings() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

SimulationMetrics::SimulationMetrics(const std::string& address, const LoadWindows& windows) {
  // Threads that serve leave these signals to this one, which waits for them in the end.
  const sigset_t signals = endings();
  sigset_t before;
  pthread_sigmask(SIG_BLOCK, &signals, &before);
  try {
    server_ = std::make_unique<Server>(address, windows);
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

SimulationMetrics::~SimulationMetrics() = default;

std::string SimulationMetrics::url() const { return server_->url(); }

void SimulationMetrics::observe(const SimulatedWindow& window) { server_->observe(window); }

void SimulationMetrics::reset() { server_->reset(); }

void SimulationMetrics::wait(std::optional<double> seconds) {
  const sigset_t signals = endings();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  if (!seconds) {
    int signal = 0;
    sigwait(&signals, &signal);
    return;
  }
  timespec left{};
  left.tv_sec = static_cast<time_t>(*seconds);
  left.tv_nsec = static_cast<long>((*seconds - static_cast<double>(left.tv_sec)) * 1e9);
  sigtimedwait(&signals, nullptr, &left);
}

}  // namespace switchyard::tools

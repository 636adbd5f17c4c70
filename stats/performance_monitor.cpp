#include "switchyard/performance_monitor.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <sstream>
#include <thread>

#include "stats/refuse.h"

namespace switchyard {
namespace {

double milliseconds(double nanoseconds) { return nanoseconds * 1e-6; }

/// "0.823 (worst: layer 7, 0.410)"
void write_balancedness(std::ostream& out, const RoutingSnapshot& snapshot) {
  double sum = 0.0;
  double worst = std::numeric_limits<double>::infinity();
  std::size_t worst_layer = 0;
  for (std::size_t i = 0; i < snapshot.layers.size(); ++i) {
    const double balancedness = snapshot.layers[i].load().balancedness;
    sum += balancedness;
    if (balancedness >= worst) continue;
    worst = balancedness;
    worst_layer = i;
  }
  out << "balancedness " << sum / static_cast<double>(snapshot.layers.size()) << " (worst: layer "
      << worst_layer << ", " << worst << ')';
}

void write_latency(std::ostream& out, const char* name, const LatencySummary& latency) {
  if (latency.count() == 0) return;
  out << "; " << name << " p50 " << milliseconds(latency.recent_percentile_ns(50)) << ", p95 "
      << milliseconds(latency.recent_percentile_ns(95)) << ", p99 "
      << milliseconds(latency.recent_percentile_ns(99)) << " ms";
}

}  // namespace

class PerformanceMonitor::Reporter {
 public:
  Reporter(const RoutingStats& stats, const PerformanceMonitorConfig& config)
      : stats_(stats), config_(config), thread_([this] { run(); }) {}
  ~Reporter() {
    {
      const std::lock_guard lock(mutex_);
      is_ending_ = true;
    }
    ending_.notify_all();
    thread_.join();
  }
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;

  [[nodiscard]] std::string line() const {
    const RoutingSnapshot snapshot = stats_.snapshot();
    const std::lock_guard lock(mutex_);
    return line_of(snapshot);
  }
  [[nodiscard]] std::string to_json() const { return stats_.snapshot().to_json(); }

 private:
  /// Where the report before has stopped counting.
  struct Mark {
    int64_t duration_ns = 0;
    int64_t tokens = 0;
    int64_t routings = 0;
  };

  void run() {
    const std::chrono::milliseconds interval(config_.interval_ms);
    auto next = std::chrono::steady_clock::now() + interval;
    std::unique_lock lock(mutex_);
    while (!ending_.wait_until(lock, next, [this] { return is_ending_; })) {
      // After a pause of the whole machine there is one report, not all that were missed.
      next = std::max(next + interval, std::chrono::steady_clock::now());
      if (!is_logged(config_.level)) continue;
      try {
        const RoutingSnapshot snapshot = stats_.snapshot();
        log_line(config_.level, line_of(snapshot));
        const LayerSums sums = snapshot.total().sums;
        mark_ = {snapshot.duration_ns, sums.tokens, sums.routings};
      } catch (const std::exception&) {
        // Without memory, say: the next report may have more luck, and routing goes on.
      }
    }
  }

  [[nodiscard]] std::string line_of(const RoutingSnapshot& snapshot) const {
    const LayerSums sums = snapshot.total().sums;
    Mark since = mark_;
    if (sums.tokens < since.tokens || snapshot.duration_ns < since.duration_ns)
      since = {};  // reset
    const auto seconds = static_cast<double>(snapshot.duration_ns - since.duration_ns) * 1e-9;
    const auto rate = [seconds](int64_t count) {
      return seconds > 0.0 ? static_cast<double>(count) / seconds : 0.0;
    };
    std::ostringstream out;
    out.precision(4);
    out << "routing: " << sums.routings << " batches, " << sums.tokens << " tokens ("
        << rate(sums.routings - since.routings) << " batches/s, "
        << rate(sums.tokens - since.tokens) << " tokens/s of late); dropped "
        << sums.dropped_assignments << " assignments, " << sums.fully_dropped_tokens
        << " whole tokens; ";
    write_balancedness(out, snapshot);
    write_latency(out, "routing", snapshot.routing_latency);
    write_latency(out, "plan", snapshot.plan_latency);
    write_latency(out, "exchange", snapshot.exchange_latency);
    if (sums.hits + sums.misses > 0) out << "; hit rate " << sums.hit_rate();
    if (snapshot.rebalances > 0) {
      out << "; " << snapshot.rebalances << " rebalances moved " << snapshot.moved_slots
          << " slots";
    }
    return out.str();
  }

  const RoutingStats& stats_;
  const PerformanceMonitorConfig config_;
  mutable std::mutex mutex_;
  std::condition_variable ending_;
  bool is_ending_ = false;
  Mark mark_;
  std::thread thread_;  // last, since it uses the rest
};

PerformanceMonitor::PerformanceMonitor(const RoutingStats& stats,
                                       const PerformanceMonitorConfig& config) {
  stats::check_range("interval_ms", config.interval_ms, 1, int64_t{1} << 40);
  reporter_ = std::make_unique<Reporter>(stats, config);
}

PerformanceMonitor::~PerformanceMonitor() = default;

std::string PerformanceMonitor::report() const { return reporter_->line(); }

std::string PerformanceMonitor::to_json() const { return reporter_->to_json(); }

}  // namespace switchyard

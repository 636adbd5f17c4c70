// The monitor's lines: when they come, what they say, and that it ends at once.
#include "switchyard/performance_monitor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tests/refusal.h"

namespace switchyard::test {
namespace {

using std::chrono::steady_clock;

/// Keeps the log's lines.
class PerformanceMonitorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_log_level(LogLevel::kInfo);
    set_log_sink([this](LogLevel level, std::string_view message) {
      const std::lock_guard lock(mutex_);
      levels_.push_back(level);
      lines_.emplace_back(message);
      arrived_.notify_all();
    });
  }
  void TearDown() override {
    set_log_sink({});
    set_log_level(LogLevel::kWarning);
  }
  /// The first `count` lines, once they are there.
  std::vector<std::string> wait_for(size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(
        arrived_.wait_for(lock, std::chrono::seconds(30), [&] { return lines_.size() >= count; }));
    return {lines_.begin(),
            lines_.begin() + static_cast<std::ptrdiff_t>(std::min(count, lines_.size()))};
  }
  size_t num_lines() {
    const std::lock_guard lock(mutex_);
    return lines_.size();
  }

  std::atomic<int64_t> now_{0};
  RoutingStats stats_{{.num_layers = 2, .num_experts = 2, .clock = [this] { return now_.load(); }}};
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<LogLevel> levels_;
  std::vector<std::string> lines_;
};

TEST_F(PerformanceMonitorTest, ReportsAlsoWhenNothingIsRecorded) {
  const PerformanceMonitor monitor(stats_, {.interval_ms = 5});
  const std::vector<std::string> lines = wait_for(3);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[2],
            "routing: 0 batches, 0 tokens (0 batches/s, 0 tokens/s of late); dropped 0 "
            "assignments, 0 whole tokens; balancedness 1 (worst: layer 0, 1)");
  EXPECT_EQ(levels_[0], LogLevel::kInfo);
}

TEST_F(PerformanceMonitorTest, SaysWhatHappened) {
  const std::vector<int64_t> uneven = {30, 10};
  const std::vector<int64_t> even = {20, 20};
  stats_.record({.num_tokens = 40,
                 .tokens_per_expert = {uneven.data(), 2},
                 .dropped_assignments = 3,
                 .fully_dropped_tokens = 1,
                 .latency_ns = 2'000'000});
  stats_.record({.layer = 1, .num_tokens = 40, .tokens_per_expert = {even.data(), 2}});
  stats_.record_residency(0, 3, 1);
  stats_.record_plan(500'000);
  stats_.record_exchange(1, 250'000);
  stats_.record_rebalance(6);
  now_ = 2'000'000'000;
  const PerformanceMonitor monitor(stats_);
  EXPECT_EQ(monitor.report(),
            "routing: 2 batches, 80 tokens (1 batches/s, 40 tokens/s of late); dropped 3 "
            "assignments, 1 whole tokens; balancedness 0.8333 (worst: layer 0, 0.6667); routing "
            "p50 2, p95 2, p99 2 ms; plan p50 0.5, p95 0.5, p99 0.5 ms; exchange p50 0.25, p95 "
            "0.25, p99 0.25 ms; hit rate 0.75; 1 rebalances moved 6 slots");
  EXPECT_EQ(num_lines(), 0u);
}

TEST_F(PerformanceMonitorTest, ThroughputIsSinceTheReportBefore) {
  const std::vector<int64_t> counts = {5, 5};
  const RoutingRecord routing{.num_tokens = 10, .tokens_per_expert = {counts.data(), 2}};
  stats_.record(routing);
  now_ = 1'000'000'000;
  const PerformanceMonitor monitor(stats_, {.interval_ms = 2});
  EXPECT_NE(wait_for(1)[0].find("1 batches, 10 tokens (1 batches/s, 10 tokens/s of late)"),
            std::string::npos);
  now_ = 2'000'000'000;
  const std::vector<std::string> lines = wait_for(num_lines() + 3);
  EXPECT_NE(lines.back().find("1 batches, 10 tokens (0 batches/s, 0 tokens/s of late)"),
            std::string::npos)
      << lines.back();
}

TEST_F(PerformanceMonitorTest, AResetStartsAnew) {
  const std::vector<int64_t> counts = {5, 5};
  stats_.record({.num_tokens = 30, .tokens_per_expert = {counts.data(), 2}});
  const PerformanceMonitor monitor(stats_, {.interval_ms = 2});
  wait_for(2);
  stats_.reset();
  stats_.record({.num_tokens = 10, .tokens_per_expert = {counts.data(), 2}});
  const std::vector<std::string> lines = wait_for(num_lines() + 3);
  EXPECT_NE(lines.back().find("1 batches, 10 tokens (0 batches/s"), std::string::npos)
      << lines.back();
}

TEST_F(PerformanceMonitorTest, EndsAtOnce) {
  const auto begin = steady_clock::now();
  { const PerformanceMonitor monitor(stats_, {.interval_ms = 3'600'000}); }
  EXPECT_LT(steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST_F(PerformanceMonitorTest, MakesNoLineThatTheLogDiscards) {
  set_log_level(LogLevel::kWarning);
  const PerformanceMonitor monitor(stats_, {.interval_ms = 1});
  const PerformanceMonitor loud(stats_, {.interval_ms = 1, .level = LogLevel::kError});
  wait_for(5);
  const std::lock_guard lock(mutex_);
  for (const LogLevel level : levels_) EXPECT_EQ(level, LogLevel::kError);
}

TEST_F(PerformanceMonitorTest, ReportsWhileThreadsRecord) {
  const PerformanceMonitor monitor(stats_, {.interval_ms = 1});
  const std::vector<int64_t> counts = {5, 5};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 3000; ++round) {
        stats_.record({.num_tokens = 10, .tokens_per_expert = {counts.data(), 2}});
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  wait_for(2);
  EXPECT_NE(monitor.report().find("9000 batches, 90000 tokens"), std::string::npos);
}

TEST_F(PerformanceMonitorTest, JsonIsTheSnapshots) {
  const PerformanceMonitor monitor(stats_);
  stats_.record_rebalance(4);
  EXPECT_EQ(nlohmann::json::parse(monitor.to_json()).at("moved_slots"), 4);
}

TEST_F(PerformanceMonitorTest, RefusesAnIntervalOfNothing) {
  EXPECT_EQ(refusal([&] { PerformanceMonitor(stats_, {.interval_ms = 0}); }),
            "interval_ms is 0, must be in [1, 1099511627776]");
}

}  // namespace
}  // namespace switchyard::test

// What it costs to record routing statistics, and to ask for a percentile: E experts, 1 to 4
// threads that record into the same RoutingStats.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include "switchyard/routing_stats.h"

namespace switchyard {
namespace {

constexpr int64_t kSlots = 8;
constexpr int64_t kTokens = 512;

/// What the threads of a benchmark share; the first of them makes it and checks it.
std::unique_ptr<RoutingStats>& shared_stats() {
  static std::unique_ptr<RoutingStats> stats;
  return stats;
}

void start(const benchmark::State& state) {
  if (state.thread_index() != 0) return;
  shared_stats() = std::make_unique<RoutingStats>(
      RoutingStatsConfig{.num_layers = 4, .num_experts = static_cast<int32_t>(state.range(0))});
}

/// Every thread has recorded `iterations` batches of so many tokens and assignments.
void check(benchmark::State& state, int64_t tokens, int64_t assignments) {
  if (state.thread_index() != 0) return;
  const LayerSums sums = shared_stats()->snapshot().total().sums;
  const int64_t routings = state.iterations() * state.threads();
  if (sums.routings != routings || sums.tokens != routings * tokens ||
      sums.assignments != routings * assignments) {
    state.SkipWithError("records were lost");
  }
}

/// One batch: the counts of 512 tokens' 8 choices, both losses, a capacity and a latency.
void batch_recorded(benchmark::State& state) {
  start(state);
  const int64_t num_experts = state.range(0);
  std::mt19937 random(static_cast<unsigned>(state.thread_index()));
  std::vector<int64_t> counts(static_cast<size_t>(num_experts));
  for (int64_t i = 0; i < kTokens * kSlots; ++i) {
    ++counts[random() % static_cast<uint32_t>(num_experts)];
  }
  RoutingRecord routing;
  routing.num_tokens = kTokens;
  routing.tokens_per_expert = {counts.data(), num_experts};
  routing.balance_loss = 1.1;
  routing.z_loss = 3.7;
  routing.expert_capacity = 4096;
  int32_t layer = 0;
  for (auto _ : state) {
    routing.layer = layer;
    routing.latency_ns = 1000 + layer;
    shared_stats()->record(routing);
    layer = (layer + 1) % 4;
  }
  check(state, kTokens, kTokens * kSlots);
}
BENCHMARK(batch_recorded)->ArgName("E")->Arg(64)->Arg(256)->ThreadRange(1, 4)->UseRealTime();

/// What a program would write that keeps the same numbers of a layer under a mutex.
struct PlainStats {
  explicit PlainStats(int64_t num_experts) : counts(static_cast<size_t>(num_experts)) {}

  void record(const RoutingRecord& routing) {
    const std::lock_guard lock(mutex);
    int64_t total = 0;
    int64_t highest = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      const int64_t count = routing.tokens_per_expert[static_cast<int64_t>(i)];
      counts[i] += count;
      total += count;
      highest = std::max(highest, count);
    }
    const double mean = static_cast<double>(total) / static_cast<double>(counts.size());
    double squares = 0.0;
    for (size_t i = 0; i < counts.size(); ++i) {
      const double difference =
          static_cast<double>(routing.tokens_per_expert[static_cast<int64_t>(i)]) - mean;
      squares += difference * difference;
    }
    variances[next_variance++ % variances.size()] = squares / static_cast<double>(counts.size());
    ++routings;
    tokens += routing.num_tokens;
    assignments += total;
    balance_loss += *routing.balance_loss;
    z_loss += *routing.z_loss;
    const double offered =
        static_cast<double>(routing.expert_capacity) * static_cast<double>(counts.size());
    capacity_use += static_cast<double>(total) / offered;
    peak =
        std::max(peak, static_cast<double>(highest) / static_cast<double>(routing.expert_capacity));
    latencies[next_latency++ % latencies.size()] = *routing.latency_ns;
  }

  std::mutex mutex;
  std::vector<int64_t> counts;
  std::array<double, 1000> variances{};
  std::array<int64_t, 1000> latencies{};
  size_t next_variance = 0;
  size_t next_latency = 0;
  int64_t routings = 0;
  int64_t tokens = 0;
  int64_t assignments = 0;
  double balance_loss = 0.0;
  double z_loss = 0.0;
  double capacity_use = 0.0;
  double peak = 0.0;
};

void batch_recorded_under_a_mutex(benchmark::State& state) {
  static std::unique_ptr<PlainStats> stats;
  if (state.thread_index() == 0) stats = std::make_unique<PlainStats>(state.range(0));
  const std::vector<int64_t> counts(static_cast<size_t>(state.range(0)), 16);
  RoutingRecord routing;
  routing.num_tokens = kTokens;
  routing.tokens_per_expert = {counts.data(), state.range(0)};
  routing.balance_loss = 1.1;
  routing.z_loss = 3.7;
  routing.expert_capacity = 4096;
  routing.latency_ns = 1000;
  for (auto _ : state) stats->record(routing);
  if (state.thread_index() == 0 &&
      stats->assignments != state.iterations() * state.threads() * 16 * state.range(0)) {
    state.SkipWithError("records were lost");
  }
}
BENCHMARK(batch_recorded_under_a_mutex)
    ->ArgName("E")
    ->Arg(64)
    ->Arg(256)
    ->ThreadRange(1, 4)
    ->UseRealTime();

/// Counts and tokens alone.
void counts_recorded(benchmark::State& state) {
  start(state);
  const int64_t num_experts = state.range(0);
  const std::vector<int64_t> counts(static_cast<size_t>(num_experts), 16);
  RoutingRecord routing;
  routing.num_tokens = kTokens;
  routing.tokens_per_expert = {counts.data(), num_experts};
  for (auto _ : state) shared_stats()->record(routing);
  check(state, kTokens, num_experts * 16);
}
BENCHMARK(counts_recorded)->ArgName("E")->Arg(256)->ThreadRange(1, 4)->UseRealTime();

/// One token by the ids of its 8 experts, with a latency.
void token_recorded(benchmark::State& state) {
  start(state);
  const auto num_experts = static_cast<uint32_t>(state.range(0));
  std::mt19937 random(static_cast<unsigned>(state.thread_index()));
  std::array<std::array<int32_t, kSlots>, 64> tokens{};
  for (auto& ids : tokens) {
    const auto first = static_cast<uint32_t>(random());
    for (uint32_t slot = 0; slot < kSlots; ++slot) {
      ids[slot] = static_cast<int32_t>((first + 29 * slot) % num_experts);
    }
  }
  RoutingRecord routing;
  routing.num_tokens = 1;
  routing.latency_ns = 900;
  size_t turn = 0;
  for (auto _ : state) {
    routing.expert_ids = {tokens[turn++ % tokens.size()].data(), 1, kSlots};
    shared_stats()->record(routing);
  }
  check(state, 1, kSlots);
}
BENCHMARK(token_recorded)->ArgName("E")->Arg(64)->Arg(256)->ThreadRange(1, 4)->UseRealTime();

/// A latency alone.
void latency_recorded(benchmark::State& state) {
  start(state);
  int64_t latency = 1000;
  for (auto _ : state) {
    shared_stats()->record_latency(Phase::kPlan, latency);
    latency = (latency * 5) % 100003;
  }
  if (state.thread_index() != 0) return;
  if (shared_stats()->latency(Phase::kPlan).count() != state.iterations() * state.threads()) {
    state.SkipWithError("latencies were lost");
  }
}
BENCHMARK(latency_recorded)->ArgName("E")->Arg(256)->ThreadRange(1, 4)->UseRealTime();

/// p99 of 100,000 latencies, from the histogram.
void percentile_asked(benchmark::State& state) {
  RoutingStats stats({.num_layers = 4, .num_experts = 256});
  std::mt19937 random(5);
  std::vector<int64_t> latencies(100000);
  for (int64_t& latency : latencies) {
    latency = static_cast<int64_t>(std::exp2(10.0 + static_cast<double>(random() % 1000) / 100.0));
    stats.record_latency(Phase::kRouting, latency);
  }
  double value = 0.0;
  for (auto _ : state) {
    value = stats.latency_percentile_ns(Phase::kRouting, 99.0);
    benchmark::DoNotOptimize(value);
  }
  std::sort(latencies.begin(), latencies.end());
  const auto exact = static_cast<double>(latencies[98999]);
  if (std::abs(value - exact) > exact * LatencyBuckets::kRelativeError) {
    state.SkipWithError("the percentile is wrong");
  }
}
BENCHMARK(percentile_asked);

/// p50, p95 and p99 of the latest 1000 latencies, exact, with the sort that they share and all else
/// that latency() does; then one of them alone.
void recent_percentiles_asked(benchmark::State& state) {
  RoutingStats stats({.num_layers = 4, .num_experts = 256});
  for (int64_t i = 0; i < 1000; ++i) {
    stats.record_latency(Phase::kRouting, 1 + i * 7919 % 1000);
  }
  const bool with_sort = state.range(0) != 0;
  LatencySummary summary = stats.latency(Phase::kRouting);
  double sum = 0.0;
  for (auto _ : state) {
    if (with_sort) summary = stats.latency(Phase::kRouting);
    sum = summary.recent_percentile_ns(99.0);
    if (with_sort) {
      sum += summary.recent_percentile_ns(50.0) + summary.recent_percentile_ns(95.0);
    }
    benchmark::DoNotOptimize(sum);
  }
  const double expected = with_sort ? 990.01 + 500.5 + 950.05 : 990.01;
  if (std::abs(sum - expected) > 1e-6) state.SkipWithError("the percentiles are wrong");
}
BENCHMARK(recent_percentiles_asked)->ArgName("sort")->Arg(0)->Arg(1);

}  // namespace
}  // namespace switchyard

BENCHMARK_MAIN();

// What it costs to record routing statistics, and to ask for a percentile: E experts, 1 to 4
// threads that record into the same RoutingStats.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
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

/// The same without losses, capacity and latency: counts and tokens alone.
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

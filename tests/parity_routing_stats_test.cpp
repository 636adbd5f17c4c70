// Families B1 to B4 and what B6 leaves to statistics: the numbers of other systems, where they are
// right, and the right ones where they are not.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "switchyard/permutation.h"
#include "switchyard/routing_stats.h"
#include "tests/parity_cases.h"
#include "tests/refusal.h"
#include "tests/sanitizers.h"

namespace switchyard::test {
namespace {

using nlohmann::json;

constexpr int64_t kNsPerMs = 1'000'000;

VectorView<const int64_t> view(const std::vector<int64_t>& counts) {
  return {counts.data(), static_cast<int64_t>(counts.size())};
}

void expect_near(const json& parity_case, const json& expected, double actual) {
  const auto wanted = expected.get<double>();
  EXPECT_NEAR(actual, wanted, parity_tolerance(parity_case, wanted)) << parity_case.at("id");
}

RoutingStats stats_of(size_t num_experts) {
  return RoutingStats({.num_experts = static_cast<int32_t>(num_experts)});
}

/// Of a batch whose drops, there, are those of tokens with one choice each.
void record_decision(RoutingStats& stats, const json& decision) {
  const auto counts = decision.at("counts").get<std::vector<int64_t>>();
  const auto dropped = decision.value("dropped", int64_t{0});
  stats.record({.num_tokens = decision.at("total_tokens").get<int64_t>(),
                .tokens_per_expert = view(counts),
                .dropped_assignments = dropped,
                .fully_dropped_tokens = dropped,
                .balance_loss = decision.value("lb_loss", 0.0),
                .z_loss = decision.value("z_loss", 0.0)});
}

/// Assignments in proportion to shares of 10 tokens.
LayerStats layer_with(const json& shares) {
  std::vector<int64_t> counts;
  for (const json& share : shares) counts.push_back(std::lround(share.get<double>() * 10.0));
  RoutingStats stats = stats_of(counts.size());
  stats.record({.num_tokens = 10, .tokens_per_expert = view(counts)});
  return stats.snapshot().layers.front();
}

TEST(ParityRoutingStats, B1_record2) {
  SWITCHYARD_PARITY_CASE(one, "B1.record2");
  RoutingStats stats = stats_of(4);
  for (const json& decision : one.at("inputs").at("decisions")) record_decision(stats, decision);
  const LayerStats layer = stats.snapshot().layers.front();
  const json& expected = one.at("expected");
  EXPECT_EQ(layer.sums.tokens, expected.at("total_tokens"));
  EXPECT_EQ(layer.sums.dropped_assignments, expected.at("dropped"));
  expect_near(one, expected.at("efficiency"), 100.0 * layer.sums.token_efficiency());
  const std::vector<double> utilization = layer.utilization();
  for (size_t expert = 0; expert < 4; ++expert) {
    expect_near(one, expected.at("utilization")[expert], utilization[expert]);
  }
  EXPECT_EQ(layer.tokens_per_expert, expected.at("token_counts"));
  expect_near(one, expected.at("avg_lb"), layer.sums.mean_balance_loss());
  expect_near(one, expected.at("avg_z"), layer.sums.mean_z_loss());
  expect_near(one, expected.at("utilization_cv"), layer.load().coefficient_of_variation);
  EXPECT_EQ(layer.sums.capacity_exceeded, expected.at("capacity_exceeded_count"));
  expect_near(one, expected.at("trend"), layer.load_variance_trend());
  EXPECT_EQ(layer.load_variances, expected.at("variance_history"));
  expect_near(one, expected.at("tokens_per_routing"), layer.sums.tokens_per_routing());
}

TEST(ParityRoutingStats, B1_ties) {
  SWITCHYARD_PARITY_CASE(one, "B1.ties");
  const LayerStats layer = layer_with(one.at("inputs").at("utilization"));
  const LoadSummary load = layer.load();
  const std::vector<double> utilization = layer.utilization();
  // There the most used of equals is the last; here it is the lower id, as everywhere.
  EXPECT_EQ(load.most_loaded, 0);
  EXPECT_EQ(load.least_loaded, one.at("expected").at("least")[0]);
  expect_near(one, one.at("expected").at("most")[1], utilization[0]);
  expect_near(one, one.at("expected").at("least")[1], utilization[1]);
}

TEST(ParityRoutingStats, B1_cv) {
  SWITCHYARD_PARITY_CASE(one, "B1.cv");
  const LayerStats layer = layer_with(one.at("inputs").at("utilization"));
  expect_near(one, one.at("expected"), layer.load().coefficient_of_variation);
}

TEST(ParityRoutingStats, B1_trend) {
  for (const char* id : {"B1.trend", "B1.trend_falling"}) {
    SWITCHYARD_PARITY_CASE(one, id);
    LayerStats layer;
    layer.load_variances = one.at("inputs").at("history").get<std::vector<double>>();
    const json& windows = one.at("inputs").at("windows");
    for (size_t i = 0; i < windows.size(); ++i) {
      expect_near(one, one.at("expected")[i], layer.load_variance_trend(windows[i].get<int64_t>()));
    }
  }
}

TEST(ParityRoutingStats, B1_fix_trend_small_slope) {
  SWITCHYARD_PARITY_CASE(one, "B1.fix.trend_small_slope");
  LayerStats layer;
  for (int i = 0; i < 1000; ++i) {
    layer.load_variances.push_back(static_cast<double>(static_cast<float>(1e6 + 0.001 * i)));
  }
  EXPECT_NEAR(layer.load_variance_trend(1000), one.at("expected").get<double>(), 1e-12);
}

/// The mean balance loss of 40 million batches.
double mean_of_many(double (*loss_of)(int64_t)) {
  RoutingStats stats = stats_of(1);
  const std::vector<int64_t> counts = {1};
  RoutingRecord routing{.num_tokens = 1, .tokens_per_expert = view(counts)};
  for (int64_t i = 0; i < 40'000'000; ++i) {
    routing.balance_loss = loss_of(i);
    stats.record(routing);
  }
  return stats.snapshot().layers.front().sums.mean_balance_loss();
}

TEST(ParityRoutingStats, B1_fix_running_average_f32) {
  if (kHasThreadSanitizer) GTEST_SKIP() << "a minute for one thread";
  SWITCHYARD_PARITY_CASE(one, "B1.fix.running_average_f32");
  EXPECT_EQ(mean_of_many([](int64_t i) { return (i + 1) % 4 == 0 ? 4.0 : 0.0; }),
            one.at("expected").get<double>());
}

TEST(ParityRoutingStats, B1_fix_running_average_f32_step) {
  if (kHasThreadSanitizer) GTEST_SKIP() << "a minute for one thread";
  SWITCHYARD_PARITY_CASE(one, "B1.fix.running_average_f32_step");
  EXPECT_EQ(mean_of_many([](int64_t i) { return i < 20'000'000 ? 1.0 : 0.0; }),
            one.at("expected").get<double>());
}

/// Another number of experts is refused; statistics for that number start with their own records.
TEST(ParityRoutingStats, B1_fix_resize_bias) {
  SWITCHYARD_PARITY_CASE(one, "B1.fix.resize_bias");
  const std::vector<int64_t> two = {5, 5};
  const std::vector<int64_t> four = {2, 2, 2, 4};
  RoutingStats stats = stats_of(2);
  for (int i = 0; i < 9; ++i) stats.record({.num_tokens = 10, .tokens_per_expert = view(two)});
  EXPECT_EQ(refusal([&] { stats.record({.num_tokens = 10, .tokens_per_expert = view(four)}); }),
            "tokens_per_expert has 4 elements, must have 2");
  EXPECT_EQ(stats.snapshot().layers.front().utilization(), (std::vector<double>{0.5, 0.5}));
  stats = stats_of(4);
  stats.record({.num_tokens = 10, .tokens_per_expert = view(four)});
  EXPECT_EQ(stats.snapshot().layers.front().utilization(), one.at("expected").at("utilization"));
}

TEST(ParityRoutingStats, B1_history_cap) {
  SWITCHYARD_PARITY_CASE(one, "B1.history_cap");
  RoutingStats stats = stats_of(2);
  for (int64_t i = 0; i < 1500; ++i) {
    const std::vector<int64_t> counts = {i % 7, 3};
    stats.record({.num_tokens = i % 7 + 3, .tokens_per_expert = view(counts)});
  }
  EXPECT_EQ(stats.snapshot().layers.front().load_variances.size(),
            one.at("expected").at("history_len"));
}

/// In milliseconds.
struct Latencies {
  RoutingStats stats = stats_of(1);

  void record(int64_t ms) { stats.record_latency(Phase::kRouting, ms * kNsPerMs); }
  [[nodiscard]] LatencySummary summary() const { return stats.latency(Phase::kRouting); }
};

TEST(ParityLatency, B2_basic) {
  SWITCHYARD_PARITY_CASE(one, "B2.basic");
  Latencies latencies;
  for (const json& ms : one.at("inputs").at("ms")) latencies.record(ms.get<int64_t>());
  const LatencySummary summary = latencies.summary();
  EXPECT_EQ(summary.count(), one.at("expected").at("n"));
  expect_near(one, one.at("expected").at("avg"), summary.mean_ns() / kNsPerMs);
  expect_near(one, one.at("expected").at("min"), summary.min_ns() / kNsPerMs);
  expect_near(one, one.at("expected").at("max"), summary.max_ns() / kNsPerMs);
}

TEST(ParityLatency, B2_empty) {
  SWITCHYARD_PARITY_CASE(one, "B2.empty");
  const LatencySummary summary = Latencies().summary();
  expect_near(one, one.at("expected").at("avg"), summary.mean_ns());
  expect_near(one, one.at("expected").at("percentile"), summary.recent_percentile_ns(95));
  expect_near(one, one.at("expected").at("percentile"), summary.percentile_ns(95));
  EXPECT_EQ(summary.min_ns(), static_cast<double>(parity_float(one.at("expected").at("min"))));
  expect_near(one, one.at("expected").at("max"), summary.max_ns());
}

TEST(ParityLatency, B2_percentiles) {
  for (const char* id : {"B2.percentile_floor", "B2.fix.p95_of_3"}) {
    SWITCHYARD_PARITY_CASE(one, id);
    Latencies latencies;
    for (const json& ms : one.at("inputs").at("ms")) latencies.record(ms.get<int64_t>());
    const json& percents = one.at("inputs").at("p");
    for (size_t i = 0; i < percents.size(); ++i) {
      const auto percent = percents[i].get<double>();
      const auto expected = one.at("expected")[i].get<double>();
      expect_near(one, expected, latencies.summary().recent_percentile_ns(percent) / kNsPerMs);
      EXPECT_NEAR(latencies.stats.latency_percentile_ns(Phase::kRouting, percent) / kNsPerMs,
                  expected, expected * LatencyBuckets::kRelativeError);
    }
  }
}

TEST(ParityLatency, B2_window) {
  SWITCHYARD_PARITY_CASE(one, "B2.window");
  Latencies latencies;
  for (int64_t ms = 1; ms <= 1500; ++ms) latencies.record(ms);
  const LatencySummary summary = latencies.summary();
  EXPECT_EQ(summary.recent_ns().size(), one.at("expected").at("window_len"));
  expect_near(one, one.at("expected").at("p0"), summary.recent_percentile_ns(0) / kNsPerMs);
  expect_near(one, one.at("expected").at("min"), summary.min_ns() / kNsPerMs);
  expect_near(one, one.at("expected").at("avg"), summary.mean_ns() / kNsPerMs);
}

LayerSums record_capacity(RoutingStats& stats, const json& counts, int64_t capacity,
                          int64_t dropped = 0) {
  const auto loads = counts.get<std::vector<int64_t>>();
  stats.record({.num_tokens = 1000,
                .tokens_per_expert = view(loads),
                .dropped_assignments = dropped,
                .expert_capacity = capacity});
  return stats.snapshot().layers.front().sums;
}

/// The mean there is a moving one with a weight of 0.1 that starts at 0; here it is over all
/// batches.
TEST(ParityCapacityUse, B3_seed_capacity100) {
  SWITCHYARD_PARITY_CASE(one, "B3.seed_capacity100");
  RoutingStats stats = stats_of(4);
  const LayerSums sums = record_capacity(stats, one.at("inputs").at("counts"),
                                         one.at("inputs").at("assumed_capacity"));
  const json& expected = one.at("expected");
  expect_near(one, expected.at("average_utilization"), 0.1 * sums.mean_capacity_use());
  expect_near(one, expected.at("peak"), sums.peak_capacity_use);
  expect_near(one, expected.at("overall_pct"), 100.0 * sums.total_capacity_use());
  EXPECT_EQ(sums.capacity_used, expected.at("used"));
  EXPECT_EQ(sums.capacity_offered, expected.at("capacity"));
}

TEST(ParityCapacityUse, B3_fix_real_capacity) {
  SWITCHYARD_PARITY_CASE(one, "B3.fix.real_capacity");
  RoutingStats stats = stats_of(4);
  const LayerSums sums = record_capacity(stats, one.at("inputs").at("counts"),
                                         one.at("inputs").at("capacity_per_expert"));
  const json& expected = one.at("expected");
  expect_near(one, expected.at("average_utilization"), sums.mean_capacity_use());
  expect_near(one, expected.at("peak"), sums.peak_capacity_use);
  expect_near(one, expected.at("peak_single_expert"), sums.peak_expert_capacity);
  expect_near(one, expected.at("overall_pct"), 100.0 * sums.total_capacity_use());
}

TEST(ParityCapacityUse, B3_second_update) {
  SWITCHYARD_PARITY_CASE(one, "B3.second_update");
  const json& inputs = one.at("inputs");
  const auto capacity = inputs.at("assumed_capacity").get<int64_t>();
  RoutingStats stats = stats_of(4);
  record_capacity(stats, inputs.at("decisions")[0], capacity, inputs.at("dropped")[0]);
  RoutingSnapshot both = stats.take_window();
  const double first = both.layers.front().sums.mean_capacity_use();
  record_capacity(stats, inputs.at("decisions")[1], capacity, inputs.at("dropped")[1]);
  const RoutingSnapshot window = stats.take_window();
  const double second = window.layers.front().sums.mean_capacity_use();
  both.append(window);
  const LayerSums& sums = both.layers.front().sums;
  const json& expected = one.at("expected");
  expect_near(one, expected.at("average_utilization"), 0.9 * (0.1 * first) + 0.1 * second);
  EXPECT_DOUBLE_EQ(sums.mean_capacity_use(), (first + second) / 2.0);
  expect_near(one, expected.at("peak"), sums.peak_capacity_use);
  expect_near(one, expected.at("overall_pct"), 100.0 * sums.total_capacity_use());
  EXPECT_EQ(sums.capacity_exceeded, expected.at("exceeded"));
}

TEST(ParityCapacityUse, B3_fix_empty_decision_nan) {
  SWITCHYARD_PARITY_CASE(one, "B3.fix.empty_decision_nan");
  RoutingStats stats = stats_of(2);
  EXPECT_NE(refusal([&] { stats.record({}); }), "");  // counts of no expert
  const std::vector<int64_t> none = {0, 0};
  stats.record({.tokens_per_expert = view(none), .expert_capacity = 0});
  const LayerSums sums = record_capacity(stats, one.at("inputs").at("decisions")[1], 100);
  EXPECT_EQ(std::isfinite(sums.mean_capacity_use()),
            one.at("expected").at("average_utilization_finite"));
  EXPECT_DOUBLE_EQ(sums.mean_capacity_use(), 0.1);
}

TEST(ParityThroughput, B4_zero_latency) {
  SWITCHYARD_PARITY_CASE(one, "B4.zero_latency");
  RoutingStats stats = stats_of(1);
  const std::vector<int64_t> counts = {100};
  stats.record({.num_tokens = 100, .tokens_per_expert = view(counts), .latency_ns = 0});
  const RoutingSnapshot snapshot = stats.snapshot();
  expect_near(one, one.at("expected")[0], snapshot.tokens_per_busy_second());
  expect_near(one, one.at("expected")[1], snapshot.routings_per_busy_second());
}

TEST(ParityThroughput, B4_monitor) {
  SWITCHYARD_PARITY_CASE(one, "B4.monitor");
  const json& inputs = one.at("inputs");
  const auto counts = inputs.at("counts").get<std::vector<int64_t>>();
  const int64_t latency_ns = inputs.at("latency_ms").get<int64_t>() * kNsPerMs;
  int64_t now = 0;
  RoutingStats stats({.num_experts = 3, .clock = [&] { return now; }});
  stats.record({.num_tokens = inputs.at("total_tokens"),
                .tokens_per_expert = view(counts),
                .latency_ns = latency_ns});
  now += latency_ns;
  const RoutingSnapshot snapshot = stats.snapshot();
  const json& expected = one.at("expected");
  EXPECT_EQ(snapshot.total().sums.routings, expected.at("total_routings"));
  EXPECT_EQ(snapshot.total().sums.tokens, expected.at("total_tokens"));
  expect_near(one, expected.at("tokens_per_s"), snapshot.tokens_per_busy_second());
  expect_near(one, expected.at("routings_per_s"), snapshot.routings_per_busy_second());
  expect_near(one, expected.at("tokens_per_s"), snapshot.tokens_per_second());
  expect_near(one, expected.at("routings_per_s"), snapshot.routings_per_second());
}

/// The rule there sends a token t without room to the least loaded expert, at half its weight,
/// where the fraction of t / 10 is below a rate. The library drops, and says what was dropped; who
/// reroutes has what it takes.
TEST(ParityCapacityUse, B6_overflow_fallback) {
  SWITCHYARD_PARITY_CASE(one, "B6.overflow_fallback");
  const json& inputs = one.at("inputs");
  const auto& probabilities = inputs.at("probs");
  const auto num_experts = static_cast<int32_t>(probabilities[0].size());
  const auto num_tokens = static_cast<int64_t>(probabilities.size());
  const int64_t capacity =
      capacity_rows({.mode = ExpertCapacity::Mode::kFactor, .factor = inputs.at("factor")},
                    num_tokens, inputs.at("k"), num_experts);
  std::vector<int64_t> counts(static_cast<size_t>(num_experts));
  json assignments = json::array();
  int64_t dropped = 0;
  for (int64_t token = 0; token < num_tokens; ++token) {
    json kept = json::array();
    const auto weight = probabilities[static_cast<size_t>(token)][0].get<double>();
    if (counts[0] < capacity) {
      ++counts[0];
      kept.push_back({0, weight, 0});
    } else if (std::fmod(0.1 * static_cast<double>(token), 1.0) <
               inputs.at("expert_dropout").get<double>()) {
      const int32_t expert = summarize_load(view(counts)).least_loaded;
      ++counts[static_cast<size_t>(expert)];
      kept.push_back({expert, weight / 2.0, 0});
    } else {
      ++dropped;
    }
    assignments.push_back(kept);
  }
  EXPECT_EQ(assignments, one.at("expected").at("assignments"));
  RoutingStats stats = stats_of(counts.size());
  stats.record({.num_tokens = num_tokens,
                .tokens_per_expert = view(counts),
                .dropped_assignments = dropped,
                .fully_dropped_tokens = dropped,
                .expert_capacity = capacity});
  const LayerStats layer = stats.snapshot().layers.front();
  EXPECT_EQ(layer.tokens_per_expert, one.at("expected").at("counts"));
  EXPECT_EQ(layer.sums.fully_dropped_tokens, one.at("expected").at("tokens_dropped"));
}

/// What a batch's own numbers say is what the statistics of that batch say.
TEST(ParityRoutingStats, B5_decisions) {
  SWITCHYARD_PARITY_CASE(one, "B5.decision");
  const auto counts = one.at("inputs").at("counts").get<std::vector<int64_t>>();
  RoutingStats stats = stats_of(counts.size());
  stats.record(
      {.num_tokens = one.at("inputs").at("total_tokens"), .tokens_per_expert = view(counts)});
  const LayerStats layer = stats.snapshot().layers.front();
  EXPECT_EQ(layer.sums.dropped_assignments, one.at("expected").at("tokens_dropped"));
  expect_near(one, one.at("expected").at("efficiency"), layer.sums.assignment_efficiency());
  expect_near(one, one.at("expected").at("cv"), layer.load().coefficient_of_variation);
}

TEST(ParityRoutingStats, B5_fix_hidden_drops) {
  SWITCHYARD_PARITY_CASE(one, "B5.fix.hidden_drops");
  RoutingStats stats = stats_of(2);
  const std::vector<int64_t> counts = {1, 1};
  stats.record({.num_tokens = one.at("inputs").at("total_tokens"),
                .tokens_per_expert = view(counts),
                .dropped_assignments = one.at("expected").at("assignments_dropped"),
                .fully_dropped_tokens = one.at("expected").at("tokens_fully_dropped")});
  const LayerSums sums = stats.snapshot().layers.front().sums;
  expect_near(one, one.at("expected").at("efficiency_assignments"), sums.assignment_efficiency());
  expect_near(one, one.at("expected").at("efficiency_tokens"), sums.token_efficiency());
}

TEST(ParityRoutingStats, B5_fix_utilization_no_tokens) {
  SWITCHYARD_PARITY_CASE(one, "B5.fix.utilization_no_tokens");
  RoutingStats stats = stats_of(2);
  const auto counts = one.at("inputs").at("counts").get<std::vector<int64_t>>();
  stats.record({.tokens_per_expert = view(counts)});
  const LayerSums sums = stats.snapshot().layers.front().sums;
  expect_near(one, one.at("expected").at("routing_efficiency"), sums.assignment_efficiency());
  expect_near(one, one.at("expected").at("tokens_dropped_rate"), 1.0 - sums.token_efficiency());
}

}  // namespace
}  // namespace switchyard::test

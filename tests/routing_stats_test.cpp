// What RoutingStats counts, on records small enough to work out by hand.
#include "switchyard/routing_stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

VectorView<const int64_t> view(const std::vector<int64_t>& counts) {
  return {counts.data(), static_cast<int64_t>(counts.size())};
}

/// Statistics of one layer of four experts, by a clock that the test moves.
class RoutingStatsTest : public ::testing::Test {
 protected:
  RoutingStatsConfig config() {
    return {.num_layers = 2, .num_experts = 4, .clock = [this] { return now_; }};
  }
  void record(const std::vector<int64_t>& counts, RoutingRecord routing = {}) {
    routing.tokens_per_expert = view(counts);
    stats_.record(routing);
  }
  LayerStats layer(size_t index) { return stats_.snapshot().layers[index]; }

  int64_t now_ = 5000;
  RoutingStats stats_{config()};
};

TEST_F(RoutingStatsTest, NothingRecordedIsNothingLost) {
  const RoutingSnapshot snapshot = stats_.snapshot();
  const LayerStats all = snapshot.total();
  EXPECT_EQ(all.sums, LayerSums{});
  EXPECT_EQ(all.sums.assignment_efficiency(), 1.0);
  EXPECT_EQ(all.sums.token_efficiency(), 1.0);
  EXPECT_EQ(all.sums.hit_rate(), 1.0);
  EXPECT_EQ(all.load().balancedness, 1.0);
  EXPECT_EQ(snapshot.tokens_per_second(), 0.0);
  EXPECT_EQ(snapshot.tokens_per_busy_second(), 0.0);
  for (const auto& [name, value] : snapshot.summary()) EXPECT_TRUE(std::isfinite(value)) << name;
}

TEST_F(RoutingStatsTest, LayersAreCountedApart) {
  record({4, 0, 0, 0}, {.layer = 0, .num_tokens = 4});
  record({1, 1, 1, 1}, {.layer = 1, .num_tokens = 2});
  record({0, 1, 1, 0}, {.layer = 1, .num_tokens = 1});
  EXPECT_EQ(layer(0).tokens_per_expert, (std::vector<int64_t>{4, 0, 0, 0}));
  EXPECT_EQ(layer(1).tokens_per_expert, (std::vector<int64_t>{1, 2, 2, 1}));
  EXPECT_EQ(layer(0).load().balancedness, 0.25);
  EXPECT_EQ(layer(1).load().balancedness, 0.75);
  EXPECT_EQ(layer(1).sums.routings, 2);
  const LayerStats all = stats_.snapshot().total();
  EXPECT_EQ(all.tokens_per_expert, (std::vector<int64_t>{5, 2, 2, 1}));
  EXPECT_EQ(all.sums.tokens, 7);
  EXPECT_EQ(all.sums.tokens_per_routing(), 7.0 / 3.0);
}

TEST_F(RoutingStatsTest, DroppedAssignmentsAndTokensAreApart) {
  record({3, 2, 1, 0}, {.num_tokens = 4, .dropped_assignments = 2, .fully_dropped_tokens = 1});
  const LayerSums sums = layer(0).sums;
  EXPECT_EQ(sums.dropped_assignments, 2);
  EXPECT_EQ(sums.fully_dropped_tokens, 1);
  EXPECT_EQ(sums.assignment_efficiency(), 0.75);
  EXPECT_EQ(sums.token_efficiency(), 0.75);
  EXPECT_EQ(sums.capacity_exceeded, 1);
}

TEST_F(RoutingStatsTest, LossesAreMeansOfTheBatchesThatHaveOne) {
  record({1, 1, 1, 1}, {.num_tokens = 4, .balance_loss = 1.5});
  record({1, 1, 1, 1}, {.num_tokens = 4});
  record({1, 1, 1, 1}, {.num_tokens = 4, .balance_loss = 0.5, .z_loss = 6.0});
  EXPECT_EQ(layer(0).sums.mean_balance_loss(), 1.0);
  EXPECT_EQ(layer(0).sums.mean_z_loss(), 6.0);
  EXPECT_EQ(layer(0).sums.routings, 3);
}

TEST_F(RoutingStatsTest, IdsCountLikeCounts) {
  const std::vector<int32_t> ids = {3, 1, 9, 3, -1, 9, 0, 1, 9};
  stats_.record({.num_tokens = 3, .expert_ids = {ids.data(), 3, 2, 3}});
  EXPECT_EQ(layer(0).tokens_per_expert, (std::vector<int64_t>{1, 2, 0, 2}));
  EXPECT_EQ(layer(0).sums.assignments, 5);
  record({1, 2, 0, 2}, {.layer = 1, .num_tokens = 3});
  EXPECT_EQ(layer(0), layer(1));
}

TEST_F(RoutingStatsTest, ABatchWithoutTokensHurtsNothing) {
  record({0, 0, 0, 0}, {.num_tokens = 0, .expert_capacity = 0});
  stats_.record({.layer = 1, .expert_ids = {nullptr, 0, 2}});
  record({2, 0, 0, 0}, {.num_tokens = 2, .expert_capacity = 4});
  EXPECT_EQ(layer(0).sums.routings, 2);
  EXPECT_EQ(layer(0).sums.mean_capacity_use(), 0.125);
  EXPECT_EQ(layer(0).load_variances, (std::vector<double>{0.0, 0.75}));
  EXPECT_EQ(layer(1).sums.routings, 1);
}

TEST_F(RoutingStatsTest, CapacityIsHeldAgainstEachBatch) {
  record({4, 4, 0, 0}, {.num_tokens = 8, .expert_capacity = 4});
  record({6, 0, 0, 0}, {.num_tokens = 6, .expert_capacity = 5});
  const LayerSums sums = layer(0).sums;
  EXPECT_EQ(sums.capacity_used, 14);
  EXPECT_EQ(sums.capacity_offered, 36);
  EXPECT_DOUBLE_EQ(sums.mean_capacity_use(), (0.5 + 0.3) / 2);
  EXPECT_DOUBLE_EQ(sums.total_capacity_use(), 14.0 / 36.0);
  EXPECT_EQ(sums.peak_capacity_use, 0.5);
  EXPECT_EQ(sums.peak_expert_capacity, 1.2);
  EXPECT_EQ(sums.capacity_exceeded, 1);  // six rows where five fit
}

TEST_F(RoutingStatsTest, UtilizationIsEachExpertsShareOfTheTokens) {
  record({2, 2, 0, 0}, {.num_tokens = 2});
  record({0, 6, 0, 6}, {.num_tokens = 6});
  EXPECT_EQ(layer(0).utilization(), (std::vector<double>{0.25, 1.0, 0.0, 0.75}));
  EXPECT_EQ(layer(1).utilization(), std::vector<double>(4));
  EXPECT_EQ(layer(0).load().most_loaded, 1);
  EXPECT_EQ(layer(0).load().least_loaded, 2);
}

TEST_F(RoutingStatsTest, VarianceIsExactForAnyCounts) {
  record({RoutingStats::kMaxRecorded, 0, 0, 0}, {.num_tokens = 1});
  record({RoutingStats::kMaxRecorded, RoutingStats::kMaxRecorded - 2, RoutingStats::kMaxRecorded,
          RoutingStats::kMaxRecorded - 2},
         {.num_tokens = 1});
  EXPECT_EQ(layer(0).load_variances, (std::vector<double>{0x1p96 * 3.0 / 16.0, 1.0}));
}

TEST_F(RoutingStatsTest, TheLatestThousandVariancesAreKept) {
  for (int64_t i = 0; i < 1500; ++i) record({2 * i, 0, 2 * i, 0}, {.num_tokens = 1});
  const std::vector<double> history = layer(0).load_variances;
  ASSERT_EQ(history.size(), 1000u);
  EXPECT_EQ(history.front(), 500.0 * 500.0);
  EXPECT_EQ(history.back(), 1499.0 * 1499.0);
  EXPECT_TRUE(layer(1).load_variances.empty());
  EXPECT_DOUBLE_EQ(layer(0).load_variance_trend(2), 1499.0 * 1499.0 - 1498.0 * 1498.0);
}

TEST_F(RoutingStatsTest, SharesOfCountsOfAnyNumberOfExperts) {
  RandomStream random(3);
  for (const int32_t num_experts : {1, 2, 3, 7, 8, 15, 17, 64, 257, 2112}) {
    RoutingStats stats({.num_experts = num_experts});
    std::vector<int64_t> expected(static_cast<size_t>(num_experts));
    std::vector<int64_t> counts(expected.size());
    for (int batch = 0; batch < 3; ++batch) {
      double mean = 0.0;
      double squares = 0.0;
      for (size_t i = 0; i < counts.size(); ++i) {
        counts[i] = random.below(1000);
        expected[i] += counts[i];
        mean += static_cast<double>(counts[i]) / num_experts;
        squares += static_cast<double>(counts[i] * counts[i]) / num_experts;
      }
      stats.record({.num_tokens = 1, .tokens_per_expert = view(counts)});
      const double variance = stats.snapshot().layers[0].load_variances.back();
      EXPECT_NEAR(variance, squares - mean * mean, 1e-6 * squares) << num_experts;
    }
    EXPECT_EQ(stats.snapshot().layers[0].tokens_per_expert, expected) << num_experts;
  }
}

TEST_F(RoutingStatsTest, ThroughputIsOverTheClockAndOverBusyTime) {
  record({5, 5, 5, 5}, {.num_tokens = 10, .latency_ns = 25'000'000});
  record({5, 5, 5, 5}, {.num_tokens = 30});
  now_ += 2'000'000'000;
  const RoutingSnapshot snapshot = stats_.snapshot();
  EXPECT_EQ(snapshot.duration_ns, 2'000'000'000);
  EXPECT_EQ(snapshot.tokens_per_second(), 20.0);
  EXPECT_EQ(snapshot.routings_per_second(), 1.0);
  EXPECT_EQ(snapshot.tokens_per_busy_second(), 400.0);
  EXPECT_EQ(snapshot.routings_per_busy_second(), 40.0);
}

TEST_F(RoutingStatsTest, ResidencyAndSacrificedMass) {
  stats_.record_residency(0, 6, 2);
  stats_.record_residency(1, 0, 8);
  const std::vector<float> masses = {0.0f, 0.25f, 0.5f, 3.0f};
  stats_.record_sacrificed_mass(1, {masses.data(), 4});
  stats_.record_sacrificed_mass(1, 0.015625);
  stats_.record_sacrificed_mass(1, VectorView<const float>{});
  EXPECT_EQ(layer(0).sums.hit_rate(), 0.75);
  EXPECT_EQ(layer(1).sums.hit_rate(), 0.0);
  EXPECT_EQ(stats_.snapshot().total().sums.hit_rate(), 0.375);
  const LayerSums sums = layer(1).sums;
  EXPECT_EQ(sums.mass_tokens, 5);
  EXPECT_EQ(sums.sacrificed_mass_sum.value(), 3.765625);
  EXPECT_EQ(sums.mean_sacrificed_mass(), 3.765625 / 5.0);
  EXPECT_EQ(sums.peak_sacrificed_mass, 3.0);
  // Buckets: 0, …, (0.01, 0.02], …, (0.2, 0.5], …, above 2.
  EXPECT_EQ(sums.mass_histogram, (std::array<int64_t, 13>{1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 1}));
}

TEST_F(RoutingStatsTest, ExchangePlansAndRebalances) {
  stats_.record_plan(1000);
  stats_.record_plan(3000);
  stats_.record_exchange(4096, 2000);
  stats_.record_rebalance(7);
  stats_.record_rebalance(0);
  const RoutingSnapshot snapshot = stats_.snapshot();
  EXPECT_EQ(snapshot.plan_latency.count(), 2);
  EXPECT_EQ(snapshot.plan_latency.mean_ns(), 2000.0);
  EXPECT_EQ(snapshot.exchange_latency.sum_ns(), 2000);
  EXPECT_EQ(snapshot.dispatch_bytes, 4096);
  EXPECT_EQ(snapshot.rebalances, 2);
  EXPECT_EQ(snapshot.moved_slots, 7);
  EXPECT_EQ(stats_.latency(Phase::kPlan), snapshot.plan_latency);
}

TEST_F(RoutingStatsTest, ALivePercentileIsThatOfTheSnapshot) {
  EXPECT_EQ(stats_.latency_percentile_ns(Phase::kRouting, 99), 0.0);
  RandomStream random(5);
  for (int i = 0; i < 3000; ++i) {
    stats_.record_latency(Phase::kRouting, int64_t{1} << random.below(40));
    if (i % 500 != 0) continue;
    const LatencySummary latency = stats_.latency(Phase::kRouting);
    for (const double percent : {-1.0, 0.0, 12.5, 50.0, 99.0, 100.0}) {
      EXPECT_EQ(stats_.latency_percentile_ns(Phase::kRouting, percent),
                latency.percentile_ns(percent));
    }
  }
}

TEST_F(RoutingStatsTest, ResetForgetsEverything) {
  record({1, 2, 3, 4}, {.num_tokens = 5, .balance_loss = 1.0, .latency_ns = 7});
  stats_.record_residency(1, 3, 4);
  stats_.record_sacrificed_mass(0, 0.5);
  stats_.record_exchange(10, 20);
  stats_.record_rebalance(3);
  now_ += 100;
  stats_.reset();
  EXPECT_EQ(stats_.snapshot(), RoutingStats(config()).snapshot());
  EXPECT_EQ(stats_.latency_percentile_ns(Phase::kRouting, 99), 0.0);
}

TEST_F(RoutingStatsTest, WindowsAddUpToTheWhole) {
  RoutingStats whole(config());
  RoutingSnapshot windows = stats_.take_window();
  RandomStream random(9);
  for (int i = 0; i < 1500; ++i) {
    now_ += 10;
    std::vector<int64_t> counts(4);
    for (int64_t& count : counts) count = random.below(9);
    const RoutingRecord routing{.layer = i % 2,
                                .num_tokens = 8,
                                .tokens_per_expert = view(counts),
                                .dropped_assignments = random.below(3),
                                .balance_loss = random.uniform(),
                                .z_loss = random.uniform(),
                                .expert_capacity = 1 + random.below(9),
                                .latency_ns = random.below(100000)};
    stats_.record(routing);
    whole.record(routing);
    stats_.record_sacrificed_mass(0, 0.1 * i);
    whole.record_sacrificed_mass(0, 0.1 * i);
    if (i % 400 == 0) windows.append(stats_.take_window());
  }
  windows.append(stats_.take_window());
  EXPECT_EQ(windows, whole.snapshot());
}

TEST_F(RoutingStatsTest, MovesWithItsRecords) {
  record({1, 2, 3, 4}, {.num_tokens = 5});
  RoutingStats moved = std::move(stats_);
  EXPECT_EQ(moved.snapshot().total().sums.assignments, 10);
  stats_ = std::move(moved);
  EXPECT_EQ(stats_.snapshot().total().sums.assignments, 10);
}

TEST(RoutingStatsClock, TheMachinesClockIsTheDefault) {
  const RoutingStats stats({.num_experts = 1});
  const int64_t before = stats.now_ns();
  EXPECT_GE(stats.now_ns(), before);
  EXPECT_GE(stats.snapshot().duration_ns, 0);
}

}  // namespace
}  // namespace switchyard::test

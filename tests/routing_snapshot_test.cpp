// Snapshots as values: adding up ranks and windows, trends, JSON, bytes.
#include "switchyard/routing_snapshot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "switchyard/routing_stats.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

/// Statistics of random records.
RoutingSnapshot random_snapshot(uint64_t seed, int num_records = 40) {
  RandomStream random(seed);
  int64_t now = 0;
  RoutingStats stats({.num_layers = 3, .num_experts = 5, .clock = [&] { return now; }});
  std::vector<int64_t> counts(5);
  for (int i = 0; i < num_records; ++i) {
    for (int64_t& count : counts) count = random.below(100);
    stats.record({.layer = i % 2,
                  .num_tokens = 100,
                  .tokens_per_expert = {counts.data(), 5},
                  .dropped_assignments = random.below(10),
                  .balance_loss = random.uniform(),
                  .z_loss = 10.0 * random.uniform(),
                  .expert_capacity = 80,
                  .latency_ns = random.below(1000000)});
    stats.record_residency(2, random.below(9), random.below(9));
    stats.record_sacrificed_mass(2, random.uniform());
    stats.record_exchange(random.below(1000), random.below(1000000));
  }
  stats.record_plan(77);
  stats.record_rebalance(5);
  now = static_cast<int64_t>(seed) * 1000;
  return stats.snapshot();
}

RoutingSnapshot merged(RoutingSnapshot a, const RoutingSnapshot& b) {
  a.merge_rank(b);
  return a;
}

TEST(RoutingSnapshot, RanksAddUpInAnyOrder) {
  const RoutingSnapshot a = random_snapshot(1);
  const RoutingSnapshot b = random_snapshot(2);
  const RoutingSnapshot c = random_snapshot(3);
  const RoutingSnapshot left = merged(merged(a, b), c);
  const RoutingSnapshot right = merged(c, merged(b, a));
  for (size_t layer = 0; layer < 3; ++layer) EXPECT_EQ(left.layers[layer], right.layers[layer]);
  EXPECT_EQ(left.total(), right.total());
  EXPECT_EQ(left.routing_latency.histogram(), right.routing_latency.histogram());
  EXPECT_EQ(left.routing_latency.recent_percentile_ns(99),
            right.routing_latency.recent_percentile_ns(99));
  EXPECT_EQ(left.moved_slots, 15);
  EXPECT_EQ(left.duration_ns, 3000);
}

TEST(RoutingSnapshot, BalancednessOfRanksIsThatOfTheirSum) {
  RoutingStats stats({.num_experts = 2});
  const std::vector<int64_t> first = {10, 0};
  const std::vector<int64_t> second = {0, 10};
  stats.record({.num_tokens = 10, .tokens_per_expert = {first.data(), 2}});
  const RoutingSnapshot rank0 = stats.take_window();
  stats.record({.num_tokens = 10, .tokens_per_expert = {second.data(), 2}});
  const RoutingSnapshot both = merged(rank0, stats.take_window());
  EXPECT_EQ(rank0.layers[0].load().balancedness, 0.5);
  EXPECT_EQ(both.layers[0].load().balancedness, 1.0);
}

TEST(RoutingSnapshot, WindowsAppendInOrder) {
  RoutingSnapshot all = random_snapshot(4, 1500);
  const RoutingSnapshot later = random_snapshot(5, 1600);
  std::vector<double> expected = all.layers[0].load_variances;
  const std::vector<double>& more = later.layers[0].load_variances;
  expected.insert(expected.end(), more.begin(), more.end());
  expected.erase(expected.begin(), expected.end() - kVarianceHistory);
  all.append(later);
  EXPECT_EQ(all.layers[0].load_variances, expected);
  EXPECT_EQ(all.duration_ns, 9000);
  EXPECT_EQ(all.routing_latency.count(), 3100);
}

TEST(RoutingSnapshot, OtherShapesAreRefused) {
  RoutingSnapshot snapshot = random_snapshot(1);
  const RoutingSnapshot before = snapshot;
  const RoutingSnapshot fewer_layers = RoutingStats({.num_layers = 2, .num_experts = 5}).snapshot();
  const RoutingSnapshot more_experts = RoutingStats({.num_layers = 3, .num_experts = 6}).snapshot();
  EXPECT_EQ(refusal([&] { snapshot.merge_rank(fewer_layers); }),
            "other has 2 layers of 5 experts, must have 3 of 5");
  EXPECT_EQ(refusal([&] { snapshot.append(more_experts); }),
            "other has 3 layers of 6 experts, must have 3 of 5");
  RoutingSnapshot broken = before;
  broken.layers[2].tokens_per_expert.pop_back();
  EXPECT_EQ(refusal([&] { snapshot.append(broken); }),
            "a layer of other has 4 counts, must have 5");
  EXPECT_EQ(snapshot, before);
}

TEST(RoutingSnapshot, BytesBringItToOtherRanks) {
  for (const uint64_t seed : {1, 2, 3}) {
    const RoutingSnapshot snapshot = random_snapshot(seed, 1200);
    EXPECT_EQ(RoutingSnapshot::from_bytes(snapshot.to_bytes()), snapshot);
  }
  const RoutingSnapshot empty = RoutingStats({.num_experts = 1}).snapshot();
  EXPECT_EQ(RoutingSnapshot::from_bytes(empty.to_bytes()), empty);
}

TEST(RoutingSnapshot, BytesOfAnotherFormAreRefused) {
  const std::vector<std::byte> bytes = random_snapshot(1, 3).to_bytes();
  for (size_t size = 0; size < bytes.size(); size += 8) {
    EXPECT_THROW(RoutingSnapshot::from_bytes({bytes.data(), size}), InvalidArgument) << size;
  }
  std::vector<std::byte> longer = bytes;
  longer.resize(bytes.size() + 8);
  EXPECT_EQ(refusal([&] { RoutingSnapshot::from_bytes(longer); }),
            "bytes go on behind their snapshot");
  longer = bytes;
  longer[0] ^= std::byte{1};
  EXPECT_EQ(refusal([&] { RoutingSnapshot::from_bytes(longer); }),
            "bytes are not those of a snapshot");
}

TEST(RoutingSnapshot, BytesWithNumbersOutOfRangeAreRefused) {
  RoutingSnapshot snapshot = RoutingStats({.num_experts = 1}).snapshot();
  const auto refused = [&] {
    return refusal([&] { RoutingSnapshot::from_bytes(snapshot.to_bytes()); });
  };
  snapshot.num_experts = 2113;
  EXPECT_EQ(refused(), "bytes of a snapshot hold 2113 experts, must hold at most 2112");
  snapshot.num_experts = 2;
  EXPECT_EQ(refused(), "bytes of a snapshot hold 1 counts in a layer of 2 experts");
  snapshot.num_experts = 1;
  snapshot.duration_ns = -1;
  EXPECT_EQ(refused(), "bytes of a snapshot hold -1, must hold 0 or more");
  snapshot.duration_ns = 1;
  snapshot.layers[0].sums.peak_capacity_use = std::numeric_limits<double>::infinity();
  EXPECT_EQ(refused(), "bytes of a snapshot hold inf, must hold finite numbers of 0 or more");
  snapshot.layers[0].sums.peak_capacity_use = 0.0;
  EXPECT_EQ(refused(), "");
}

TEST(RoutingSnapshot, NoBytesBreakIt) {
  const std::vector<std::byte> bytes = random_snapshot(1, 3).to_bytes();
  RandomStream random(8);
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::byte> changed = bytes;
    for (int64_t change = random.below(4); change >= 0; --change) {
      const auto place = random.below(static_cast<int64_t>(bytes.size()));
      changed[static_cast<size_t>(place)] = static_cast<std::byte>(random.below(256));
    }
    try {
      RoutingSnapshot snapshot = RoutingSnapshot::from_bytes(changed);
      EXPECT_EQ(RoutingSnapshot::from_bytes(snapshot.to_bytes()), snapshot);
    } catch (const InvalidArgument&) {
    }
  }
}

TEST(RoutingSnapshot, JsonIsOneObjectOfFiniteNumbers) {
  const RoutingSnapshot snapshot = random_snapshot(6);
  const nlohmann::json json = nlohmann::json::parse(snapshot.to_json());
  EXPECT_EQ(json.at("num_experts"), 5);
  EXPECT_EQ(json.at("layers").size(), 3u);
  EXPECT_EQ(json.at("layers")[1].at("tokens_per_expert"), snapshot.layers[1].tokens_per_expert);
  EXPECT_EQ(json.at("layers")[1].at("layer"), 1);
  EXPECT_EQ(json.at("total").at("tokens"), 4000);
  EXPECT_EQ(json.at("total").at("hit_rate"), snapshot.total().sums.hit_rate());
  EXPECT_EQ(json.at("routing_latency").at("count"), 40);
  EXPECT_EQ(json.at("moved_slots"), 5);
  EXPECT_EQ(snapshot.to_json().find('\n'), std::string::npos);
}

TEST(RoutingSnapshot, JsonOfNothingHasNoMinimum) {
  const RoutingStats stats({.num_experts = 2});
  const nlohmann::json json = nlohmann::json::parse(stats.snapshot().to_json());
  EXPECT_TRUE(json.at("plan_latency").at("min_ns").is_null());
  EXPECT_EQ(json.at("total").at("assignment_efficiency"), 1.0);
}

TEST(RoutingSnapshot, TheSummaryNamesNumbersOfTheWhole) {
  const RoutingSnapshot snapshot = random_snapshot(7);
  const auto summary = snapshot.summary();
  EXPECT_EQ(summary.at("total_tokens"), 4000.0);
  EXPECT_EQ(summary.at("mean_z_loss"), snapshot.total().sums.mean_z_loss());
  EXPECT_EQ(summary.at("balancedness"), snapshot.total().load().balancedness);
  EXPECT_EQ(summary.at("rebalances"), 1.0);
}

TEST(TrendOf, IsTheSlopeOfTheLatestValues) {
  const std::vector<double> values = {9.0, 1.0, 3.0, 5.0};
  const VectorView<const double> view{values.data(), 4};
  EXPECT_DOUBLE_EQ(trend_of(view, 3), 2.0);
  EXPECT_DOUBLE_EQ(trend_of(view, 4), (-1.5 * 9.0 - 0.5 * 1.0 + 0.5 * 3.0 + 1.5 * 5.0) / 5.0);
  EXPECT_EQ(trend_of(view, 1), 0.0);
  EXPECT_EQ(trend_of(view, 0), 0.0);
  EXPECT_EQ(trend_of(view, -7), 0.0);
  EXPECT_EQ(trend_of({}, 5), 0.0);
}

}  // namespace
}  // namespace switchyard::test

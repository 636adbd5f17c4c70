// What RoutingStats refuses: the message names argument, value and limit; nothing is recorded.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <vector>

#include "switchyard/routing_stats.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class RoutingStatsRefusal : public ::testing::Test {
 protected:
  RoutingStatsRefusal() {
    stats_.record(good());
    before_ = stats_.snapshot();
  }
  RoutingRecord good() const {
    return {.layer = 1, .num_tokens = 3, .tokens_per_expert = {counts_.data(), 3}};
  }
  /// The refusal of the good record after `change`.
  std::string refusal_of(const std::function<void(RoutingRecord&)>& change) {
    RoutingRecord routing = good();
    change(routing);
    std::string text = refusal([&] { stats_.record(routing); });
    EXPECT_TRUE(is_unchanged()) << text;
    return text;
  }
  bool is_unchanged() { return stats_.snapshot().total() == before_.total(); }

  const std::vector<int64_t> counts_ = {1, 2, 3};
  RoutingStats stats_{{.num_layers = 2, .num_experts = 3}};
  RoutingSnapshot before_;
};

TEST(RoutingStatsConfigRefusal, Contract10_NamesFieldValueAndLimit) {
  EXPECT_EQ(refusal([] { RoutingStats({.num_layers = 0, .num_experts = 3}); }),
            "num_layers is 0, must be in [1, 4096]");
  EXPECT_EQ(refusal([] { RoutingStats({.num_experts = 0}); }),
            "num_experts is 0, must be in [1, 2112]");
  EXPECT_EQ(refusal([] { RoutingStats({.num_experts = 2113}); }),
            "num_experts is 2113, must be in [1, 2112]");
  EXPECT_EQ(refusal([] { RoutingStats({.num_experts = 1, .num_recorders = 65}); }),
            "num_recorders is 65, must be in [1, 64]");
}

TEST_F(RoutingStatsRefusal, Contract10_Numbers) {
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.layer = 2; }), "layer is 2, must be in [0, 1]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.layer = -1; }), "layer is -1, must be in [0, 1]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.num_tokens = -1; }),
            "num_tokens is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.dropped_assignments = -3; }),
            "dropped_assignments is -3, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) {
              r.dropped_assignments = 9;
              r.fully_dropped_tokens = 4;
            }),
            "fully_dropped_tokens is 4, must be in [0, 3]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.fully_dropped_tokens = 1; }),
            "fully_dropped_tokens is 1, must be in [0, 0]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.expert_capacity = -1; }),
            "expert_capacity is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.latency_ns = -1; }),
            "latency_ns is -1, must be in [0, 281474976710656]");
}

TEST_F(RoutingStatsRefusal, Contract10_LossesThatAreNoNumbers) {
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.balance_loss = kNan; }),
            "balance_loss is nan, must be in [0, 4.29497e+09]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.balance_loss = -0.5; }),
            "balance_loss is -0.5, must be in [0, 4.29497e+09]");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.z_loss = kInfinity; }),
            "z_loss is inf, must be in [0, 4.29497e+09]");
}

TEST_F(RoutingStatsRefusal, Contract10_CountsOfAnotherSizeOrBelowZero) {
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.tokens_per_expert.size = 2; }),
            "tokens_per_expert has 2 elements, must have 3");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) { r.tokens_per_expert = {}; }),
            "tokens_per_expert has 0 elements, must have 3");
  EXPECT_EQ(refusal_of([](RoutingRecord& r) {
              r.tokens_per_expert = {nullptr, 3};
            }),
            "tokens_per_expert is a null pointer");
  const std::vector<int64_t> negative = {5, -1, 2};
  EXPECT_EQ(refusal_of([&](RoutingRecord& r) {
              r.tokens_per_expert = {negative.data(), 3};
            }),
            "tokens_per_expert of expert 1 is -1, must be in [0, 281474976710656]");
  const std::vector<int64_t> large = {5, 1, RoutingStats::kMaxRecorded + 1};
  EXPECT_EQ(refusal_of([&](RoutingRecord& r) {
              r.tokens_per_expert = {large.data(), 3};
            }),
            "tokens_per_expert of expert 2 is 281474976710657, must be in [0, 281474976710656]");
}

TEST_F(RoutingStatsRefusal, Contract10_NegativeCountsInAnyLane) {
  for (int32_t size = 1; size < 40; ++size) {
    RoutingStats stats({.num_experts = size});
    for (int32_t wrong = 0; wrong < size; ++wrong) {
      std::vector<int64_t> counts(static_cast<size_t>(size), 1);
      counts[static_cast<size_t>(wrong)] = -1;
      EXPECT_EQ(refusal([&] {
                  stats.record({.num_tokens = 1, .tokens_per_expert = {counts.data(), size}});
                }),
                "tokens_per_expert of expert " + std::to_string(wrong) +
                    " is -1, must be in [0, 281474976710656]");
    }
    EXPECT_EQ(stats.snapshot().layers[0].sums, LayerSums{});
  }
}

TEST_F(RoutingStatsRefusal, Contract10_Ids) {
  const std::vector<int32_t> ids = {0, 1, 2, 3};
  EXPECT_EQ(refusal_of([&](RoutingRecord& r) {
              r.expert_ids = {ids.data(), 2, 2};
            }),
            "tokens_per_expert and expert_ids are both given");
  const auto refusal_of_ids = [&](MatrixView<const int32_t> view) {
    return refusal_of([&](RoutingRecord& r) {
      r.tokens_per_expert = {};
      r.expert_ids = view;
    });
  };
  EXPECT_EQ(refusal_of_ids({ids.data(), 2, 2}),
            "expert_ids of token 1, slot 1 is 3, must be in [-1, 3)");
  EXPECT_EQ(refusal_of_ids({ids.data(), -1, 2}),
            "expert_ids rows is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refusal_of_ids({ids.data(), 1, 2113}),
            "expert_ids columns is 2113, must be in [0, 2112]");
  EXPECT_EQ(refusal_of_ids({ids.data(), 2, 2, 1}),
            "expert_ids has row_stride 1, must be at least its 2 columns");
  EXPECT_EQ(refusal_of_ids({nullptr, 2, 2}), "expert_ids is a null pointer");
}

TEST_F(RoutingStatsRefusal, Contract10_EverythingElse) {
  const std::string limit = ", must be in [0, 281474976710656]";
  EXPECT_EQ(refusal([&] { stats_.record_residency(2, 1, 1); }), "layer is 2, must be in [0, 1]");
  EXPECT_EQ(refusal([&] { stats_.record_residency(0, -1, 1); }), "hits is -1" + limit);
  EXPECT_EQ(refusal([&] { stats_.record_residency(0, 1, -1); }), "misses is -1" + limit);
  const std::vector<float> masses = {0.5f, -0.5f};
  EXPECT_EQ(refusal([&] {
              stats_.record_sacrificed_mass(0, {masses.data(), 2});
            }),
            "mass_of_tokens of token 1 is -0.5, must be in [0, 4.29497e+09]");
  EXPECT_EQ(refusal([&] {
              stats_.record_sacrificed_mass(0, {nullptr, 2});
            }),
            "mass_of_tokens is a null pointer");
  EXPECT_EQ(refusal([&] { stats_.record_sacrificed_mass(0, kNan); }),
            "mass is nan, must be in [0, 4.29497e+09]");
  EXPECT_EQ(refusal([&] { stats_.record_sacrificed_mass(5, 0.0); }),
            "layer is 5, must be in [0, 1]");
  EXPECT_EQ(refusal([&] { stats_.record_plan(-1); }), "nanoseconds is -1" + limit);
  EXPECT_EQ(refusal([&] { stats_.record_exchange(-1, 1); }), "bytes is -1" + limit);
  EXPECT_EQ(refusal([&] { stats_.record_exchange(1, -1); }), "nanoseconds is -1" + limit);
  EXPECT_EQ(refusal([&] { stats_.record_rebalance(-1); }), "moved_slots is -1" + limit);
  EXPECT_EQ(refusal([&] { (void)stats_.latency_percentile_ns(Phase::kPlan, kNan); }),
            "percent is nan, must be a number");
  RoutingSnapshot after = stats_.snapshot();
  after.duration_ns = before_.duration_ns;
  EXPECT_EQ(after, before_);
}

}  // namespace
}  // namespace switchyard::test

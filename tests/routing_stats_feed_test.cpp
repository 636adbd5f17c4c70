// The feed on host backends: what is there at once, and what it refuses.
#include "switchyard/routing_stats_feed.h"

#include <gtest/gtest.h>

#include <vector>

#include "switchyard/router_losses.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

VectorView<const int64_t> view(const std::vector<int64_t>& values) {
  return {values.data(), static_cast<int64_t>(values.size())};
}

TEST(RoutingStatsFeed, NumbersAreThoseOfTheCall) {
  RoutingStats stats({.num_experts = 2});
  RoutingStatsFeed feed(stats, Backend::kReference);
  std::vector<int64_t> counts = {3, 1};
  feed.record({.num_tokens = 4, .tokens_per_expert = view(counts)});
  counts = {100, 100};
  EXPECT_EQ(feed.num_under_way(), 1);
  EXPECT_EQ(feed.collect(), 1);
  EXPECT_EQ(feed.num_under_way(), 0);
  EXPECT_EQ(stats.snapshot().layers[0].tokens_per_expert, (std::vector<int64_t>{3, 1}));
}

TEST(RoutingStatsFeed, NumbersThatCannotBeAreCountedAndLeftOut) {
  RoutingStats stats({.num_experts = 2});
  RoutingStatsFeed feed(stats, Backend::kCpu);
  const std::vector<int64_t> wrong = {3, -1};
  const std::vector<int64_t> right = {3, 1};
  const PermutationTotals impossible{.dropped_assignments = 9, .fully_dropped_tokens = 8};
  feed.record({.num_tokens = 4, .tokens_per_expert = view(wrong)});
  feed.record({.num_tokens = 4, .tokens_per_expert = view(right), .totals = &impossible});
  feed.record({.num_tokens = 4, .tokens_per_expert = view(right)});
  EXPECT_EQ(feed.collect(), 1);  // the call before has collected the others
  EXPECT_EQ(feed.num_refused(), 2);
  EXPECT_EQ(stats.snapshot().layers[0].sums.routings, 1);
}

TEST(RoutingStatsFeed, Contract10_RefusesWhatTheHostKnows) {
  RoutingStats stats({.num_layers = 2, .num_experts = 2});
  EXPECT_EQ(refusal([&] { RoutingStatsFeed(stats, Backend::kCpu, 0); }),
            "num_slots is 0, must be in [1, 65536]");
  RoutingStatsFeed feed(stats, Backend::kCpu);
  const std::vector<int64_t> counts = {1, 1};
  const std::vector<int64_t> sums(6);
  const auto refused = [&](const auto& change) {
    FedRouting routing{.num_tokens = 1, .tokens_per_expert = view(counts)};
    change(routing);
    return refusal([&] { feed.record(routing); });
  };
  EXPECT_EQ(refused([](FedRouting& r) { r.layer = 2; }), "layer is 2, must be in [0, 1]");
  EXPECT_EQ(refused([](FedRouting& r) { r.num_tokens = -1; }),
            "num_tokens is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refused([](FedRouting& r) { r.tokens_per_expert.size = 1; }),
            "tokens_per_expert has 1 elements, must have 2");
  EXPECT_EQ(refused([](FedRouting& r) { r.tokens_per_expert.data = nullptr; }),
            "tokens_per_expert is a null pointer");
  EXPECT_EQ(refused([&](FedRouting& r) { r.loss_sums = view(sums); }),
            "loss_sums size is 6, must be in [4, 5]");
  EXPECT_EQ(refused([&](FedRouting& r) {
              r.loss_sums = {nullptr, 5};
            }),
            "loss_sums is a null pointer");
  EXPECT_EQ(refused([](FedRouting& r) { r.expert_capacity = -1; }),
            "expert_capacity is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(refused([](FedRouting& r) { r.latency_ns = -1; }),
            "latency_ns is -1, must be in [0, 281474976710656]");
  EXPECT_EQ(feed.num_under_way(), 0);
}

TEST(RoutingStatsFeed, MovesWithWhatIsUnderWay) {
  RoutingStats stats({.num_experts = 2});
  RoutingStatsFeed feed(stats, Backend::kCpu);
  const std::vector<int64_t> counts = {1, 1};
  feed.record({.num_tokens = 1, .tokens_per_expert = view(counts)});
  RoutingStatsFeed moved = std::move(feed);
  feed = std::move(moved);
  EXPECT_EQ(feed.collect(), 1);
}

}  // namespace
}  // namespace switchyard::test

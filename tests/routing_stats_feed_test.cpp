// The feed on host backends: the same statistics as without it.
#include "switchyard/routing_stats_feed.h"

#include <gtest/gtest.h>

#include <vector>

#include "switchyard/router.h"
#include "switchyard/router_losses.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

VectorView<const int64_t> view(const std::vector<int64_t>& values) {
  return {values.data(), static_cast<int64_t>(values.size())};
}

TEST(RoutingStatsFeed, GivesTheStatisticsOfTheSameBatches) {
  const Router router({.num_experts = 24, .top_k = 3}, Backend::kCpu);
  RoutingStats fed({.num_layers = 2, .num_experts = 24});
  RoutingStats direct({.num_layers = 2, .num_experts = 24});
  RoutingStatsFeed feed(fed, Backend::kCpu, 2);
  RandomStream random(1);
  for (int batch = 0; batch < 10; ++batch) {
    std::vector<float> logits(50 * 24);
    for (float& logit : logits) logit = static_cast<float>(random.normal());
    std::vector<int32_t> ids(50 * 3);
    std::vector<float> weights(50 * 3);
    std::vector<int64_t> counts(24);
    std::vector<int64_t> loss_sums(static_cast<size_t>(router_loss_sums_size(24)));
    RoutingResult result;
    result.expert_ids = {ids.data(), 50, 3};
    result.gate_weights = MatrixView<float>(weights.data(), 50, 3);
    result.tokens_per_expert = {counts.data(), 24};
    result.loss_sums = {loss_sums.data(), router_loss_sums_size(24)};
    std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(50)));
    router.route({.logits = MatrixView<const float>(logits.data(), 50, 24)}, result, workspace);
    const PermutationTotals totals{
        .kept_assignments = 150, .dropped_assignments = random.below(9), .fully_dropped_tokens = 0};
    const RouterLosses losses = finalize_router_losses(view(loss_sums), view(counts));
    EXPECT_TRUE(feed.record({.layer = batch % 2,
                             .num_tokens = 50,
                             .tokens_per_expert = view(counts),
                             .loss_sums = view(loss_sums),
                             .totals = &totals,
                             .expert_capacity = 9,
                             .latency_ns = 100 * batch}));
    direct.record({.layer = batch % 2,
                   .num_tokens = 50,
                   .tokens_per_expert = view(counts),
                   .dropped_assignments = totals.dropped_assignments,
                   .balance_loss = losses.balance_loss,
                   .z_loss = losses.z_loss,
                   .expert_capacity = 9,
                   .latency_ns = 100 * batch});
  }
  feed.finish();
  EXPECT_EQ(feed.num_skipped(), 0);
  RoutingSnapshot snapshot = fed.snapshot();
  snapshot.duration_ns = 0;
  RoutingSnapshot expected = direct.snapshot();
  expected.duration_ns = 0;
  EXPECT_EQ(snapshot, expected);
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

// The feed on any backend: the statistics that the same batches give without it.
#include <gtest/gtest.h>

#include <vector>

#include "switchyard/router.h"
#include "switchyard/router_losses.h"
#include "switchyard/routing_stats_feed.h"
#include "tests/backend_memory.h"
#include "tests/backend_variants.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

constexpr int64_t kTokens = 50;
constexpr RouterConfig kRouting{.num_experts = 24, .top_k = 3};

/// What a router writes, in memory that the host can read too.
struct Routed {
  BackendVector<int32_t> ids = BackendVector<int32_t>(kTokens * 3);
  BackendVector<float> weights = BackendVector<float>(kTokens * 3);
  BackendVector<int64_t> counts = BackendVector<int64_t>(24);
  BackendVector<int64_t> loss_sums =
      BackendVector<int64_t>(static_cast<size_t>(router_loss_sums_size(24)));
  BackendVector<PermutationTotals> totals = BackendVector<PermutationTotals>(1);

  RoutingResult result() {
    RoutingResult views;
    views.expert_ids = {ids.data(), kTokens, 3};
    views.gate_weights = MatrixView<float>(weights.data(), kTokens, 3);
    views.tokens_per_expert = {counts.data(), 24};
    views.loss_sums = {loss_sums.data(), router_loss_sums_size(24)};
    return views;
  }
};

TEST(RoutingStatsFeeds, GiveTheStatisticsOfTheSameBatches) {
  for (const BackendVariant& variant : backend_variants()) {
    const ScopedCpuTarget target(variant.target);
    const Router router(kRouting, variant.backend, variant.threads);
    BackendVector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(kTokens)));
    RoutingStats fed({.num_layers = 2, .num_experts = 24});
    RoutingStats direct({.num_layers = 2, .num_experts = 24});
    RoutingStatsFeed feed(fed, variant.backend, 32);
    RandomStream random(1);
    for (int batch = 0; batch < 10; ++batch) {
      BackendVector<float> logits(kTokens * 24);
      for (float& logit : logits) logit = static_cast<float>(random.normal());
      Routed routed;
      routed.totals[0] = {.kept_assignments = 150, .dropped_assignments = random.below(9)};
      router.route({.logits = MatrixView<const float>(logits.data(), kTokens, 24)}, routed.result(),
                   workspace);
      const RoutingResult result = routed.result();
      EXPECT_TRUE(feed.record({.layer = batch % 2,
                               .num_tokens = kTokens,
                               .tokens_per_expert = result.tokens_per_expert,
                               .loss_sums = result.loss_sums,
                               .totals = routed.totals.data(),
                               .expert_capacity = 9,
                               .latency_ns = 100 * batch}));
      finish_backends();
      const RouterLossValues losses =
          router_loss_values(result.loss_sums, result.tokens_per_expert);
      direct.record({.layer = batch % 2,
                     .num_tokens = kTokens,
                     .tokens_per_expert = result.tokens_per_expert,
                     .dropped_assignments = routed.totals[0].dropped_assignments,
                     .balance_loss = losses.balance_loss,
                     .z_loss = losses.z_loss,
                     .expert_capacity = 9,
                     .latency_ns = 100 * batch});
    }
    feed.finish();
    EXPECT_EQ(feed.num_skipped(), 0);
    EXPECT_EQ(feed.num_refused(), 0);
    RoutingSnapshot snapshot = fed.snapshot();
    RoutingSnapshot expected = direct.snapshot();
    snapshot.duration_ns = expected.duration_ns;
    EXPECT_EQ(snapshot, expected) << variant.name;
  }
}

}  // namespace
}  // namespace switchyard::test

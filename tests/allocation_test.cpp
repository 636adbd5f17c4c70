// The hot path does not allocate. This program counts every operator new of the process.
#include <gtest/gtest.h>

#include "switchyard/expert_affinity.h"
#include "switchyard/expert_choice.h"
#include "switchyard/hash_routing.h"
#include "switchyard/router_losses.h"
#include "switchyard/routing_stats.h"
#include "switchyard/routing_stats_feed.h"
#include "tests/allocation_counter.h"
#include "tests/backend_variants.h"
#include "tests/routing_conformance.h"

namespace switchyard::test {
namespace {

TEST(Allocation, TheCounterCounts) {
  // Called by name, the pair may not be optimised away.
  EXPECT_EQ(allocations_of([] { ::operator delete(::operator new(16)); }), 1);
  EXPECT_EQ(allocations_of([] {}), 0);
}

class RoutingAllocation : public ::testing::TestWithParam<ScoreFunction> {};

TEST_P(RoutingAllocation, Contract7_RoutingNeverAllocates) {
  for (const int64_t num_tokens : {0, 1, 4096}) {
    for (const bool options : {false, true}) {
      RoutingCase c;
      c.config = {.num_experts = 64, .top_k = 8, .score_function = GetParam()};
      if (options) {
        c.config.num_groups = 8;
        c.config.top_groups = 4;
        c.config.group_score = GroupScore::kTop2Sum;
        c.config.num_shared_experts = 1;
      }
      c.num_tokens = num_tokens;
      c.with_bias = c.with_token_mask = c.with_expert_mask = options;
      // Rows that a fast path may hand on are in here too.
      c.distribution = options ? Distribution::kMixedSpecial : Distribution::kNormal;
      const RoutingBatch batch(c);
      const int64_t slots = c.config.num_slots();
      std::vector<int32_t> ids(static_cast<size_t>(num_tokens * slots));
      std::vector<float> weights(ids.size());
      std::vector<int64_t> counts(static_cast<size_t>(c.config.num_expert_ids()));
      std::vector<int64_t> losses(static_cast<size_t>(router_loss_sums_size(64)));
      int64_t degenerate = 0;
      RoutingResult result;
      result.expert_ids = {ids.data(), num_tokens, slots};
      result.gate_weights = MatrixView<float>(weights.data(), num_tokens, slots);
      result.tokens_per_expert = {counts.data(), static_cast<int64_t>(counts.size())};
      result.loss_sums = {losses.data(), static_cast<int64_t>(losses.size())};
      result.num_degenerate_rows = &degenerate;
      const RoutingInputs inputs = batch.inputs();
      for (const BackendVariant& variant : backend_variants()) {
        const ScopedCpuTarget target(variant.target);
        const Router router(c.config, variant.backend, variant.threads);
        std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(num_tokens)));
        EXPECT_EQ(allocations_of([&] { router.route(inputs, result, workspace); }), 0)
            << variant.name << ' ' << describe(c);
      }
    }
  }
}

TEST(Allocation, Contract7_ExpertChoiceNeverAllocates) {
  const int64_t num_tokens = 500;
  const Logits logits(Distribution::kMixedSpecial, DataType::kBFloat16, num_tokens, 40, 40, 1);
  for (const auto score :
       {ExpertChoiceScore::kSoftmaxOverExperts, ExpertChoiceScore::kSoftmaxOverTokens}) {
    ExpertChoiceConfig config;
    config.num_experts = 40;
    config.fixed_capacity = 30;
    config.score = score;
    std::vector<int32_t> ids(40 * 30);
    std::vector<float> weights(ids.size());
    for (const BackendVariant& variant : backend_variants()) {
      const ScopedCpuTarget target(variant.target);
      const ExpertChoiceRouter router(config, variant.backend, variant.threads);
      std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(num_tokens)));
      EXPECT_EQ(allocations_of([&] {
                  router.route({logits.view()}, {{ids.data(), 40, 30}, {weights.data(), 40, 30}},
                               workspace);
                }),
                0)
          << variant.name;
    }
  }
}

TEST_P(RoutingAllocation, Contract7_HashRoutingNeverAllocates) {
  const int64_t num_tokens = 2000;
  const RouterConfig config{
      .num_experts = 40, .top_k = 6, .score_function = GetParam(), .renormalize = false};
  const Logits logits(Distribution::kMixedSpecial, DataType::kFloat32, num_tokens, 40, 40, 1);
  std::vector<int32_t> table(100 * 6);
  fill_hash_table(40, 1, {table.data(), 100, 6});
  const std::vector<int32_t> token_ids(static_cast<size_t>(num_tokens), 7);
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens) * 6);
  std::vector<float> weights(ids.size());
  std::vector<int64_t> counts(40);
  RoutingResult result;
  result.expert_ids = {ids.data(), num_tokens, 6};
  result.gate_weights = MatrixView<float>(weights.data(), num_tokens, 6);
  result.tokens_per_expert = {counts.data(), 40};
  for (const BackendVariant& variant : backend_variants()) {
    const ScopedCpuTarget target(variant.target);
    const HashRouter router(config, variant.backend, variant.threads);
    EXPECT_EQ(allocations_of([&] {
                router.route(
                    {{token_ids.data(), num_tokens}, {table.data(), 100, 6}, logits.view()},
                    result);
              }),
              0)
        << variant.name;
  }
}

TEST(Allocation, Contract7_AffinityAllocatesOnlyWhenItIsMade) {
  const std::vector<int32_t> ids(4000, 39);
  const std::vector<int64_t> counts(40, 1);
  std::vector<float> scores(40);
  std::vector<int64_t> activations(40);
  std::vector<int32_t> experts(8);
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    ExpertAffinity affinity({.num_experts = 40}, backend);
    EXPECT_EQ(allocations_of([&] {
                affinity.record({ids.data(), 2, 1});
                affinity.record({ids.data(), 1000, 4});
                affinity.update();
                affinity.update({counts.data(), 40});
                affinity.scores({scores.data(), 40});
                affinity.activations({activations.data(), 40});
                const int64_t count = affinity.top_k({experts.data(), 8});
                (void)affinity.least({experts.data(), count});
                (void)affinity.percentile(39);
                affinity.reset();
              }),
              0)
        << name_of(backend);
  }
  EXPECT_EQ(activations[39], 4003);
}

TEST(Allocation, Contract7_RecordingStatisticsNeverAllocates) {
  const std::vector<int64_t> counts(256, 3);
  const std::vector<int32_t> ids = {1, 2, 3, 255};
  const std::vector<float> masses(100, 0.1f);
  RoutingStats stats({.num_layers = 2, .num_experts = 256, .num_recorders = 1});
  double percentile = 0.0;
  EXPECT_EQ(allocations_of([&] {
              for (int i = 0; i < 1100; ++i) {
                stats.record({.layer = 1,
                              .num_tokens = 96,
                              .tokens_per_expert = {counts.data(), 256},
                              .balance_loss = 1.0,
                              .z_loss = 2.0,
                              .expert_capacity = 4,
                              .latency_ns = i});
                stats.record({.num_tokens = 2, .expert_ids = {ids.data(), 2, 2}});
              }
              stats.record_residency(0, 1, 2);
              stats.record_sacrificed_mass(0, {masses.data(), 100});
              stats.record_sacrificed_mass(0, 0.5);
              stats.record_plan(10);
              stats.record_exchange(10, 20);
              stats.record_rebalance(3);
              percentile = stats.latency_percentile_ns(Phase::kRouting, 99.0);
            }),
            0);
  EXPECT_GT(percentile, 1000.0);
}

TEST(Allocation, Contract7_FeedingStatisticsNeverAllocates) {
  const std::vector<int64_t> counts(256, 3);
  const std::vector<int64_t> loss_sums(static_cast<size_t>(router_loss_sums_size(256)), 9);
  RoutingStats stats({.num_experts = 256});
  RoutingStatsFeed feed(stats, Backend::kCpu, 4);
  EXPECT_EQ(allocations_of([&] {
              for (int i = 0; i < 20; ++i) {
                feed.record({.num_tokens = 96,
                             .tokens_per_expert = {counts.data(), 256},
                             .loss_sums = {loss_sums.data(), router_loss_sums_size(256)}});
              }
              feed.finish();
            }),
            0);
  EXPECT_EQ(stats.snapshot().layers[0].sums.balance_losses, 20);
}

TEST(Allocation, Contract7_RecordingFromMoreThreadsThanCellsNeverAllocates) {
  const std::vector<int64_t> counts(256, 3);
  RoutingStats stats({.num_experts = 256, .num_recorders = 1});
  ThreadPool threads(4);
  struct Work {
    RoutingStats& stats;
    const std::vector<int64_t>& counts;
  } work{stats, counts};
  const auto record = [](void* context, int) {
    auto& shared = *static_cast<Work*>(context);
    for (int i = 0; i < 2000; ++i) {
      shared.stats.record({.num_tokens = 96, .tokens_per_expert = {shared.counts.data(), 256}});
    }
  };
  EXPECT_EQ(allocations_of([&] { threads.parallel_for(4, record, &work); }), 0);
  EXPECT_EQ(stats.snapshot().total().sums.routings, 8000);
}

std::string test_name(const ::testing::TestParamInfo<ScoreFunction>& test) {
  constexpr const char* kNames[] = {"Softmax", "Sigmoid", "SqrtSoftplus", "Identity"};
  return kNames[static_cast<size_t>(test.param)];
}

INSTANTIATE_TEST_SUITE_P(Scores, RoutingAllocation, ::testing::ValuesIn(kAllScores), test_name);

}  // namespace
}  // namespace switchyard::test

// Losses from the sums of routed batches.
#include "switchyard/router_losses.h"

#include <gtest/gtest.h>

#include <cmath>

#include "switchyard/errors.h"
#include "tests/routing_case.h"
#include "tests/routing_oracle.h"

namespace switchyard::test {
namespace {

using Layout = RouterLossLayout;

RouterLosses finalize(const RoutedBatch& routed) {
  return finalize_router_losses(
      {routed.loss_sums.data(), static_cast<int64_t>(routed.loss_sums.size())},
      {routed.tokens_per_expert.data(), static_cast<int64_t>(routed.tokens_per_expert.size())});
}

TEST(RouterLosses, MatchFloat64) {
  for (const ScoreFunction score : {ScoreFunction::kSoftmax, ScoreFunction::kSigmoid}) {
    RoutingCase c;
    c.config = {.num_experts = 12, .top_k = 3, .score_function = score};
    c.num_tokens = 200;
    c.seed = 31;
    const RoutingBatch batch(c);
    const RouterLosses losses =
        finalize(route(Router(c.config, Backend::kReference), c, batch.inputs()));
    std::vector<double> probability(12, 0.0);
    std::vector<double> count(12, 0.0);
    double z = 0.0;
    for (int64_t token = 0; token < 200; ++token) {
      const OracleRow row = route_in_float64(c.config, {batch.logits().row(token), {}, {}});
      for (const int32_t id : row.expert_ids) count[static_cast<size_t>(id)] += 1.0 / 600.0;
      for (size_t e = 0; e < 12; ++e) probability[e] += row.probability[e] / 200.0;
      z += row.log_sum_exp * row.log_sum_exp / 200.0;
    }
    double balance = 0.0;
    for (size_t e = 0; e < 12; ++e) {
      balance += 12.0 * count[e] * probability[e];
      EXPECT_NEAR(losses.mean_probability[static_cast<int64_t>(e)], probability[e], 1e-7);
    }
    EXPECT_NEAR(losses.balance_loss, balance, 1e-6);
    EXPECT_NEAR(losses.z_loss, z, 1e-5);
    EXPECT_EQ(losses.num_tokens, 200);
  }
}

TEST(RouterLosses, BalancedRoutingCostsOne) {
  const std::vector<int64_t> sums = {4, 0, 0, 1 << 30, 1 << 30, 1 << 30, 1 << 30};
  const std::vector<int64_t> counts = {2, 2, 2, 2};
  const RouterLosses losses = finalize_router_losses({sums.data(), 7}, {counts.data(), 4});
  EXPECT_EQ(losses.balance_loss, 1.0);
}

TEST(RouterLosses, SumsOfBatchesAddUp) {
  RoutingCase c;
  c.config = {.num_experts = 8, .top_k = 2};
  c.num_tokens = 90;
  const RoutingBatch batch(c);
  const Router router(c.config, Backend::kCpu);
  const RouterLosses whole = finalize(route(router, c, batch.inputs()));
  RoutedBatch sum = route(router, c, batch.inputs(0, 37));
  const RoutedBatch rest = route(router, c, batch.inputs(37, 90));
  for (size_t i = 0; i < sum.loss_sums.size(); ++i) sum.loss_sums[i] += rest.loss_sums[i];
  for (size_t i = 0; i < sum.tokens_per_expert.size(); ++i) {
    sum.tokens_per_expert[i] += rest.tokens_per_expert[i];
  }
  const RouterLosses added = finalize(sum);
  EXPECT_EQ(added.balance_loss, whole.balance_loss);
  EXPECT_EQ(added.z_loss, whole.z_loss);
}

TEST(RouterLosses, SharedExpertsAreLeftOut) {
  const std::vector<int64_t> sums = {1, 0, 0, 3 << 28, 1 << 28};
  const std::vector<int64_t> counts = {1, 0, 1000};
  const RouterLosses losses = finalize_router_losses({sums.data(), 5}, {counts.data(), 3});
  EXPECT_DOUBLE_EQ(losses.balance_loss, 1.5);
}

TEST(RouterLosses, NoTokensCostNothing) {
  const std::vector<int64_t> sums(3 + 4, 0);
  const std::vector<int64_t> counts(4, 0);
  const RouterLosses losses = finalize_router_losses({sums.data(), 7}, {counts.data(), 4});
  EXPECT_EQ(losses.balance_loss, 0.0);
  EXPECT_EQ(losses.z_loss, 0.0);
  EXPECT_EQ(losses.num_tokens, 0);
  EXPECT_EQ(losses.mean_probability.size(), 4);
  EXPECT_EQ(losses.mean_probability[3], 0.0);
}

TEST(RouterLosses, HugeLogitsSaturate) {
  RoutingCase c;
  c.config = {.num_experts = 4, .top_k = 1};
  c.num_tokens = 3;
  const Logits logits(std::vector<float>(12, 3e38f), DataType::kFloat32, 3, 4, 4);
  RoutingInputs inputs;
  inputs.logits = logits.view();
  const RouterLosses losses = finalize(route(Router(c.config, Backend::kReference), c, inputs));
  EXPECT_EQ(losses.z_loss, Layout::kMaxLogSumExp * Layout::kMaxLogSumExp);
}

TEST(RouterLosses, SizesThatDisagreeAreRefused) {
  const std::vector<int64_t> memory(16, 0);
  const auto refusal = [&](int64_t sums, int64_t counts, bool null = false) {
    try {
      finalize_router_losses({null ? nullptr : memory.data(), sums}, {memory.data(), counts});
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(3, 4), "loss_sums has 3 elements, must have at least 4");
  EXPECT_EQ(refusal(7, 3),
            "tokens_per_expert has 3 elements, must have at least the 4 of loss_sums");
  EXPECT_EQ(refusal(7, 4, true), "loss_sums is a null pointer");
  EXPECT_EQ(refusal(7, 4), "");
}

}  // namespace
}  // namespace switchyard::test

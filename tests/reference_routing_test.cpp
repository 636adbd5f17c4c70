// The reference backend against float64 and against rows worked out by hand.
#include <gtest/gtest.h>

#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>

#include "switchyard/router_losses.h"
#include "tests/routing_conformance.h"
#include "tests/routing_oracle.h"

namespace switchyard::test {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

OracleInput oracle_input(const RoutingBatch& batch, int64_t token) {
  const auto& bias = batch.selection_bias();
  const auto& mask = batch.expert_mask();
  return {batch.logits().row(token), {bias.begin(), bias.end()}, {mask.begin(), mask.end()}};
}

/// Compares every unmasked token, the counts and the losses with the oracle.
std::string contradiction(const RoutingCase& c) {
  const RoutingBatch batch(c);
  const RoutedBatch routed = route(Router(c.config, Backend::kReference), c, batch.inputs());
  if (!routed.guards_intact) return "a guard word was overwritten; " + describe(c);
  int64_t degenerate = 0;
  std::vector<int64_t> counts(static_cast<size_t>(c.config.num_expert_ids()), 0);
  std::vector<double> probability(static_cast<size_t>(c.config.num_experts), 0.0);
  double slack = 1e-6;
  double z_sum = 0.0;
  for (int64_t token = 0; token < c.num_tokens; ++token) {
    const auto first = static_cast<size_t>(token * c.config.num_slots());
    std::vector<int32_t> ids;
    std::vector<float> weights;
    for (size_t slot = first; slot < first + static_cast<size_t>(c.config.top_k); ++slot) {
      ids.push_back(routed.expert_ids[slot]);
      weights.push_back(std::bit_cast<float>(routed.gate_weights[slot]));
    }
    if (!batch.token_mask().empty() && batch.token_mask()[static_cast<size_t>(token)] == 0) {
      for (const int32_t id : ids) {
        if (id != -1) return "a masked token has an id; " + describe(c);
      }
      continue;
    }
    const OracleInput input = oracle_input(batch, token);
    const std::string text = contradiction(c.config, input, ids, weights);
    if (!text.empty()) return text + "\n  token " + std::to_string(token) + " of " + describe(c);
    for (const int32_t id : ids) ++counts[static_cast<size_t>(id)];
    for (int32_t e = c.config.num_experts; e < c.config.num_expert_ids(); ++e) {
      ++counts[static_cast<size_t>(e)];
    }
    const OracleRow row = route_in_float64(c.config, input);
    degenerate += row.degenerate ? 1 : 0;
    if (row.degenerate) continue;
    slack += row.probability_slack;
    const double logsumexp = std::clamp(row.log_sum_exp, -32768.0, 32768.0);
    z_sum += logsumexp * logsumexp;
    for (size_t e = 0; e < probability.size(); ++e) probability[e] += row.probability[e];
  }
  if (counts != routed.tokens_per_expert) return "tokens_per_expert; " + describe(c);
  if (degenerate != routed.num_degenerate_rows) return "num_degenerate_rows; " + describe(c);
  using Layout = RouterLossLayout;
  for (size_t e = 0; e < probability.size(); ++e) {
    const auto sum = static_cast<double>(routed.loss_sums[Layout::kProbability + e]);
    if (std::fabs(sum * Layout::kProbabilityUnit - probability[e]) > slack) {
      return "probability of expert " + std::to_string(e) + "; " + describe(c);
    }
  }
  const double z =
      static_cast<double>(routed.loss_sums[Layout::kZWhole]) +
      static_cast<double>(routed.loss_sums[Layout::kZFraction]) * Layout::kFractionUnit;
  if (std::fabs(z - z_sum) > 1e-5 + 4e-6 * std::fabs(z_sum)) return "z sum; " + describe(c);
  return "";
}

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
  int64_t degenerate = 0;
};

/// One float32 row on the reference.
Routed route_row(const RouterConfig& config, const std::vector<float>& logits,
                 const std::vector<float>& bias = {}, const std::vector<uint8_t>& mask = {}) {
  Routed out;
  out.ids.resize(static_cast<size_t>(config.num_slots()));
  out.weights.resize(static_cast<size_t>(config.num_slots()));
  RoutingInputs inputs;
  inputs.logits = MatrixView<const float>(logits.data(), 1, static_cast<int64_t>(logits.size()));
  inputs.selection_bias = {bias.data(), static_cast<int64_t>(bias.size())};
  inputs.expert_mask = {mask.data(), static_cast<int64_t>(mask.size())};
  RoutingResult result;
  result.expert_ids = {out.ids.data(), 1, config.num_slots()};
  result.gate_weights = MatrixView<float>(out.weights.data(), 1, config.num_slots());
  result.num_degenerate_rows = &out.degenerate;
  Router(config, Backend::kReference).route(inputs, result);
  return out;
}

using Ids = std::vector<int32_t>;

TEST(ReferenceRouting, AgreesWithFloat64OnEveryShape) {
  RandomStream random(101);
  for (const int32_t num_experts : kExpertCounts) {
    for (const int32_t top_k : kTopKs) {
      if (top_k > num_experts) continue;
      for (const ScoreFunction score : kAllScores) {
        RoutingCase c;
        c.config.num_experts = num_experts;
        c.config.top_k = top_k;
        c.config.score_function = score;
        c.num_tokens = pick_num_tokens(random, num_experts, 4096);
        randomize(random, c);
        c.percent_resident = 0;  // the oracle knows of no preference
        c.weight_dtype = DataType::kFloat32;
        c.with_losses = c.with_counts = true;
        ASSERT_EQ(contradiction(c), "");
      }
    }
  }
}

TEST(ReferenceRouting, AgreesWithFloat64OnEveryDistribution) {
  RandomStream random(102);
  for (const Distribution distribution : kAllDistributions) {
    for (const DataType dtype : kAllDataTypes) {
      for (const ScoreFunction score : kAllScores) {
        for (int repetition = 0; repetition < 8; ++repetition) {
          RoutingCase c;
          c.config.num_experts = 64;
          c.config.top_k = random.pick(kTopKs);
          c.config.score_function = score;
          c.num_tokens = 17;
          randomize(random, c);
          c.percent_resident = 0;  // the oracle knows of no preference
          c.distribution = distribution;
          c.dtype = dtype;
          c.weight_dtype = DataType::kFloat32;
          c.with_losses = c.with_counts = true;
          ASSERT_EQ(contradiction(c), "");
        }
      }
    }
  }
}

TEST(ReferenceRouting, SoftmaxByHand) {
  const Routed renormalised = route_row({.num_experts = 4, .top_k = 2}, {1, 4, 2, 3});
  EXPECT_EQ(renormalised.ids, (Ids{1, 3}));
  EXPECT_FLOAT_EQ(renormalised.weights[0], 0.7310585786f);
  EXPECT_FLOAT_EQ(renormalised.weights[1], 0.2689414214f);
  const Routed raw = route_row({.num_experts = 4, .top_k = 2, .renormalize = false}, {1, 4, 2, 3});
  EXPECT_FLOAT_EQ(raw.weights[0], 0.6439142599f);
  EXPECT_FLOAT_EQ(raw.weights[1], 0.2368828181f);
}

TEST(ReferenceRouting, SigmoidWithBiasByHand) {
  const RouterConfig config{.num_experts = 3,
                            .top_k = 2,
                            .score_function = ScoreFunction::kSigmoid,
                            .routed_scaling_factor = 2.5f};
  // Scores 0.5, 0.7311, 0.8808; with bias 1.5, 0.7311, 0.8808.
  const Routed row = route_row(config, {0, 1, 2}, {1, 0, 0});
  EXPECT_EQ(row.ids, (Ids{0, 2}));
  EXPECT_FLOAT_EQ(row.weights[0], 2.5f * 0.5f / (0.5f + 0.8807970780f));
  EXPECT_FLOAT_EQ(row.weights[1], 2.5f * 0.8807970780f / (0.5f + 0.8807970780f));
}

TEST(ReferenceRouting, SqrtSoftplusByHand) {
  const RouterConfig config{.num_experts = 2,
                            .top_k = 2,
                            .score_function = ScoreFunction::kSqrtSoftplus,
                            .renormalize = false};
  const Routed row = route_row(config, {0, 1});
  EXPECT_EQ(row.ids, (Ids{1, 0}));
  EXPECT_FLOAT_EQ(row.weights[0], 1.1459763f);
  EXPECT_FLOAT_EQ(row.weights[1], 0.83255461f);
}

TEST(ReferenceRouting, GroupScoresByHand) {
  // Group 0 has the best expert, group 1 the best pair, group 2 the best three.
  const std::vector<float> logits = {9, 0, 0, 0, 6, 6, 0, 0, 5, 5, 5, 0};
  RouterConfig config{.num_experts = 12,
                      .top_k = 3,
                      .score_function = ScoreFunction::kIdentity,
                      .num_groups = 3,
                      .top_groups = 1};
  EXPECT_EQ(route_row(config, logits).ids, (Ids{0, 1, 2}));
  config.group_score = GroupScore::kTop2Sum;
  EXPECT_EQ(route_row(config, logits).ids, (Ids{4, 5, 6}));
  config.group_score = GroupScore::kTopKSum;
  EXPECT_EQ(route_row(config, logits).ids, (Ids{8, 9, 10}));
}

TEST(ReferenceRouting, TiedGroupsGoToTheLowerGroup) {
  const RouterConfig config{.num_experts = 6, .top_k = 2, .num_groups = 3, .top_groups = 1};
  EXPECT_EQ(route_row(config, {1, 2, 2, 1, 0, 2}).ids, (Ids{1, 0}));
}

TEST(ReferenceRouting, OpposedInfinitiesInAGroupSumCountAsTheLowest) {
  // The fixed tree over 8 terms meets +inf and -inf here.
  const float m = FLT_MAX;
  const float s = 0x1p103f;
  const std::vector<float> logits = {m,  s,  s,  s,  s, -m, -m, -m, -m, -m, -m, -m,
                                     -m, -m, -m, -m, 0, 0,  0,  0,  0,  0,  0,  0};
  const RouterConfig config{.num_experts = 24,
                            .top_k = 8,
                            .score_function = ScoreFunction::kIdentity,
                            .num_groups = 3,
                            .top_groups = 1,
                            .group_score = GroupScore::kTopKSum};
  EXPECT_EQ(route_row(config, logits).ids, (Ids{16, 17, 18, 19, 20, 21, 22, 23}));
}

TEST(ReferenceRouting, ShortRowsFillWithTheLowestIdsAtWeightZero) {
  const Routed row =
      route_row({.num_experts = 6, .top_k = 4}, {kNaN, kInfinity, 3, -kInfinity, 5, kNaN});
  EXPECT_EQ(row.ids, (Ids{4, 2, 0, 1}));
  EXPECT_FLOAT_EQ(row.weights[0] + row.weights[1], 1.0f);
  EXPECT_EQ(row.weights[2], 0.0f);
  EXPECT_EQ(row.weights[3], 0.0f);
  EXPECT_EQ(row.degenerate, 0);
}

TEST(ReferenceRouting, ShortRowsFillWithEnabledExpertsFirst) {
  const Routed row =
      route_row({.num_experts = 5, .top_k = 4}, {1, 2, 3, kNaN, 4}, {}, {0, 1, 0, 1, 0});
  EXPECT_EQ(row.ids, (Ids{1, 3, 0, 2}));
  EXPECT_EQ(row.weights, (std::vector<float>{1, 0, 0, 0}));
}

TEST(ReferenceRouting, RowsWithoutAFiniteLogitAreDegenerate) {
  const Routed row = route_row({.num_experts = 3, .top_k = 2}, {kNaN, kInfinity, -kInfinity});
  EXPECT_EQ(row.ids, (Ids{0, 1}));
  EXPECT_EQ(row.weights, (std::vector<float>{0, 0}));
  EXPECT_EQ(row.degenerate, 1);
}

TEST(ReferenceRouting, SharedExpertsFollowTheRoutedOnes) {
  const Routed row = route_row({.num_experts = 4,
                                .top_k = 1,
                                .routed_scaling_factor = 2.0f,
                                .num_shared_experts = 2,
                                .shared_expert_weight = 0.25f},
                               {0, 3, 1, 2});
  EXPECT_EQ(row.ids, (Ids{1, 4, 5}));
  EXPECT_EQ(row.weights, (std::vector<float>{2.0f, 0.25f, 0.25f}));
}

TEST(ReferenceRouting, CancellingIdentityScoresRenormaliseToZero) {
  const RouterConfig config{
      .num_experts = 2, .top_k = 2, .score_function = ScoreFunction::kIdentity};
  EXPECT_EQ(route_row(config, {3, -3}).weights, (std::vector<float>{0, 0}));
}

}  // namespace
}  // namespace switchyard::test

// Routing on every CPU variant equals the reference for any input, and keeps the contract's order.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "tests/backend_variants.h"
#include "tests/routing_conformance.h"

namespace switchyard::test {
namespace {

struct Shape {
  int32_t num_experts, top_k;
};
constexpr Shape kShapes[] = {{1, 1},   {2, 2},    {8, 2},    {16, 4},   {31, 5},
                             {60, 4},  {64, 8},   {65, 33},  {100, 64}, {128, 8},
                             {256, 8}, {257, 17}, {512, 10}, {896, 16}, {2048, 9}};

class RoutingDistributions : public ::testing::TestWithParam<Distribution> {};

TEST_P(RoutingDistributions, Contract2_UniqueInRangeIdsForAnyBits) {
  RandomStream random(301 + static_cast<uint64_t>(GetParam()));
  for (const Shape& shape : kShapes) {
    for (const DataType dtype : kAllDataTypes) {
      for (const ScoreFunction score : kAllScores) {
        RoutingCase c;
        c.config.num_experts = shape.num_experts;
        c.config.top_k = shape.top_k;
        c.config.score_function = score;
        c.num_tokens = shape.num_experts <= 64 ? 37 : 18;
        if (shape.num_experts > 512) c.num_tokens = 3;
        randomize(random, c);
        c.distribution = GetParam();
        c.dtype = dtype;
        ASSERT_EQ(disagreement(c), "");

        const RoutedBatch routed = route(Router(c.config, backend_variants().front().backend), c);
        for (int64_t token = 0; token < c.num_tokens; ++token) {
          const auto first = routed.expert_ids.begin() + token * c.config.num_slots();
          std::vector<int32_t> ids(first, first + c.config.num_slots());
          if (ids[0] == -1) continue;
          std::sort(ids.begin(), ids.end());
          ASSERT_GE(ids.front(), 0) << describe(c);
          ASSERT_LT(ids.back(), c.config.num_expert_ids()) << describe(c);
          ASSERT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end()) << describe(c);
        }
      }
    }
  }
}

TEST_P(RoutingDistributions, PlainSoftmaxAgrees) {
  uint64_t seed = 331;
  for (const Shape& shape : kShapes) {
    for (const DataType dtype : kAllDataTypes) {
      for (const bool renormalize : {true, false}) {
        RoutingCase c;
        c.config.num_experts = shape.num_experts;
        c.config.top_k = shape.top_k;
        c.config.renormalize = renormalize;
        c.num_tokens = shape.num_experts <= 512 ? 35 : 3;
        c.distribution = GetParam();
        c.dtype = dtype;
        c.with_losses = false;
        c.seed = ++seed;
        ASSERT_EQ(disagreement(c), "");
      }
    }
  }
}

std::string test_name(const ::testing::TestParamInfo<Distribution>& test) {
  return name_of(test.param);
}

INSTANTIATE_TEST_SUITE_P(Distributions, RoutingDistributions,
                         ::testing::ValuesIn(kAllDistributions), test_name);

TEST(RoutingRules, Contract2_MaskedTokensGetNothingAndCountNowhere) {
  RoutingCase c;
  c.config = {.num_experts = 16, .top_k = 4, .num_shared_experts = 1};
  c.num_tokens = 50;
  c.with_token_mask = true;
  c.seed = 5;
  const RoutingBatch batch(c);
  for (const BackendVariant& variant : backend_variants()) {
    const ScopedCpuTarget target(variant.target);
    const RoutedBatch routed =
        route(Router(c.config, variant.backend, variant.threads), c, batch.inputs());
    int64_t masked = 0;
    for (int64_t token = 0; token < c.num_tokens; ++token) {
      const bool padding = batch.token_mask()[static_cast<size_t>(token)] == 0;
      masked += padding ? 1 : 0;
      for (int64_t slot = 0; slot < c.config.num_slots(); ++slot) {
        const auto i = static_cast<size_t>(token * c.config.num_slots() + slot);
        EXPECT_EQ(routed.expert_ids[i] == -1, padding);
        EXPECT_EQ(routed.gate_weights[i] == 0, padding);
      }
    }
    EXPECT_GT(masked, 0);
    EXPECT_EQ(routed.tokens_per_expert[16], c.num_tokens - masked);
    EXPECT_EQ(routed.loss_sums[0], c.num_tokens - masked);
  }
}

/// A masked token's row must not even be looked at as numbers: padding holds anything.
TEST(RoutingRules, Contract2_MaskedTokensOfNaNAreNotDegenerate) {
  RoutingCase c;
  c.config = {.num_experts = 8, .top_k = 2};
  c.num_tokens = 40;
  c.distribution = Distribution::kAllNaN;
  c.with_token_mask = true;
  ASSERT_EQ(disagreement(c), "");
  const RoutingBatch batch(c);
  const auto& mask = batch.token_mask();
  const RoutedBatch routed =
      route(Router(c.config, backend_variants().front().backend), c, batch.inputs());
  EXPECT_EQ(routed.num_degenerate_rows, c.num_tokens - std::count(mask.begin(), mask.end(), 0));
}

/// Every pair and every run of equal values, so that a tie meets every lane boundary.
TEST(RoutingRules, Contract3_TiesGoToTheLowerId) {
  for (const int32_t num_experts : {2, 3, 8, 16, 33, 64, 65, 128, 256, 512}) {
    for (const int32_t top_k : {1, 2, 7, 8, 10}) {
      if (top_k > num_experts) continue;
      for (const DataType dtype : kAllDataTypes) {
        const int64_t num_tokens = 48;
        std::vector<float> values(static_cast<size_t>(num_tokens * num_experts), 0.5f);
        RandomStream random(static_cast<uint64_t>(num_experts * 100 + top_k));
        for (int64_t token = 0; token < num_tokens; ++token) {
          // Some experts a little lower, one of each sign of zero: all of the best are tied.
          for (int32_t e = 0; e < num_experts; ++e) {
            if (random.chance(static_cast<int>(token))) {
              values[static_cast<size_t>(token * num_experts + e)] =
                  random.chance(50) ? 0.0f : -0.0f;
            }
          }
        }
        const Logits logits(values, dtype, num_tokens, num_experts, num_experts);
        for (const BackendVariant& variant : backend_variants()) {
          const ScopedCpuTarget target(variant.target);
          const Router router({.num_experts = num_experts, .top_k = top_k}, variant.backend,
                              variant.threads);
          BackendVector<int32_t> ids(static_cast<size_t>(num_tokens * top_k));
          BackendVector<float> weights(ids.size());
          BackendVector<std::byte> workspace(
              static_cast<size_t>(router.workspace_bytes(num_tokens)));
          RoutingInputs inputs;
          inputs.logits = logits.view();
          RoutingResult result;
          result.expert_ids = {ids.data(), num_tokens, top_k};
          result.gate_weights = MatrixView<float>(weights.data(), num_tokens, top_k);
          router.route(inputs, result, workspace);
          finish_backends();
          for (int64_t token = 0; token < num_tokens; ++token) {
            const std::vector<float> row = logits.row(token);
            for (int32_t slot = 0; slot + 1 < top_k; ++slot) {
              const int32_t a = ids[static_cast<size_t>(token * top_k + slot)];
              const int32_t b = ids[static_cast<size_t>(token * top_k + slot + 1)];
              const float score_a = row[static_cast<size_t>(a)];
              const float score_b = row[static_cast<size_t>(b)];
              ASSERT_TRUE(score_a > score_b || (score_a == score_b && a < b))
                  << variant.name << " E=" << num_experts << " k=" << top_k << ' ' << name_of(dtype)
                  << " token " << token;
            }
          }
        }
      }
    }
  }
}

/// Neighbouring floats differ in the lowest bits only, which packed keys are tempted to drop.
TEST(RoutingRules, Contract3_TheLowestBitDecides) {
  for (const int32_t num_experts : {8, 32, 60, 64, 128, 256, 384, 512, 1024, 2048}) {
    RandomStream random(static_cast<uint64_t>(num_experts));
    for (const int32_t top_k : {1, 2, 4, 8, 16}) {
      if (top_k > num_experts) continue;
      const int64_t num_tokens = num_experts <= 512 ? 33 : 5;
      std::vector<float> values;
      for (int64_t i = 0; i < num_tokens * num_experts; ++i) {
        const float base = (i / num_experts) % 2 == 0 ? 1.5f : -1.5f;
        values.push_back(std::bit_cast<float>(std::bit_cast<uint32_t>(base) +
                                              static_cast<uint32_t>(random.below(6))));
      }
      const Logits logits(values, DataType::kFloat32, num_tokens, num_experts, num_experts);
      for (const ScoreFunction score : {ScoreFunction::kSoftmax, ScoreFunction::kIdentity}) {
        for (const BackendVariant& variant : backend_variants()) {
          const ScopedCpuTarget target(variant.target);
          const Router router({.num_experts = num_experts, .top_k = top_k, .score_function = score},
                              variant.backend, variant.threads);
          RoutingCase c;
          c.config = router.config();
          RoutingInputs inputs;
          inputs.logits = logits.view();
          const Router reference(c.config, Backend::kReference);
          ASSERT_EQ(difference(route(reference, c, inputs), route(router, c, inputs)), "")
              << variant.name << " E=" << num_experts << " k=" << top_k;
        }
      }
    }
  }
}

}  // namespace
}  // namespace switchyard::test

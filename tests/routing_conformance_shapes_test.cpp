// Routing on every CPU variant equals the reference for any shape and any options.
#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>

#include "tests/backend_variants.h"
#include "tests/routing_conformance.h"
#include "tests/sanitizers.h"

namespace switchyard::test {
namespace {

RoutingCase case_of(int32_t num_experts, int32_t top_k, ScoreFunction score) {
  RoutingCase c;
  c.config.num_experts = num_experts;
  c.config.top_k = top_k;
  c.config.score_function = score;
  return c;
}

class RoutingShapes : public ::testing::TestWithParam<ScoreFunction> {};

TEST_P(RoutingShapes, Contract1_AnyShape) {
  RandomStream random(201 + static_cast<uint64_t>(GetParam()));
  for (const int32_t num_experts : kExpertCounts) {
    for (const int32_t top_k : kTopKs) {
      if (top_k > num_experts) continue;
      RoutingCase c = case_of(num_experts, top_k, GetParam());
      c.num_tokens = pick_num_tokens(random, num_experts, 6000);
      randomize(random, c);
      ASSERT_EQ(disagreement(c), "");
    }
  }
}

TEST_P(RoutingShapes, Contract1_AnyNumberOfTokens) {
  RandomStream random(211 + static_cast<uint64_t>(GetParam()));
  for (const int64_t num_tokens : kTokenCounts) {
    for (const int32_t num_experts : {1, 2, 8, 17, 60, 64, 128, 160, 256, 257, 512}) {
      for (const int32_t top_k : {1, 2, 6, 8}) {
        if (top_k > num_experts) continue;
        RoutingCase c = case_of(num_experts, top_k, GetParam());
        c.num_tokens = num_tokens;
        randomize(random, c);
        ASSERT_EQ(disagreement(c), "");
      }
    }
  }
}

/// The plain configurations, which fast paths are written for.
TEST_P(RoutingShapes, Contract1_WithoutOptions) {
  uint64_t seed = 221;
  for (const int32_t num_experts : {2, 8, 16, 32, 60, 64, 100, 128, 256, 384, 512, 896}) {
    for (const int32_t top_k : {1, 2, 4, 6, 8, 10, 16, 22}) {
      if (top_k > num_experts) continue;
      for (const DataType dtype : kAllDataTypes) {
        for (const bool renormalize : {true, false}) {
          RoutingCase c = case_of(num_experts, top_k, GetParam());
          c.config.renormalize = renormalize;
          c.num_tokens = num_experts <= 128 ? 33 : 17;
          c.dtype = dtype;
          c.with_losses = false;
          c.seed = ++seed;
          ASSERT_EQ(disagreement(c), "");
        }
      }
    }
  }
}

std::string test_name(const ::testing::TestParamInfo<ScoreFunction>& test) {
  constexpr const char* kNames[] = {"Softmax", "Sigmoid", "SqrtSoftplus", "Identity"};
  return kNames[static_cast<size_t>(test.param)];
}

INSTANTIATE_TEST_SUITE_P(Scores, RoutingShapes, ::testing::ValuesIn(kAllScores), test_name);

TEST(RoutingShapesOfGroups, Contract1_AnyGroups) {
  RandomStream random(231);
  struct Shape {
    int32_t num_experts, top_k, num_groups, top_groups;
  };
  constexpr Shape kShapes[] = {
      {256, 8, 8, 4},  {160, 6, 8, 3},   {64, 8, 8, 8},    {64, 8, 64, 8},   {64, 4, 4, 1},
      {8, 2, 4, 2},    {12, 3, 4, 3},    {512, 22, 32, 9}, {2048, 64, 8, 4}, {96, 6, 32, 3},
      {255, 15, 5, 2}, {16, 1, 2, 1},    {384, 8, 128, 8}, {1000, 10, 8, 1}, {2048, 32, 1024, 32},
      {9, 3, 3, 1},    {256, 8, 256, 64}};
  for (const Shape& shape : kShapes) {
    for (const GroupScore group_score : kAllGroupScores) {
      if (group_score == GroupScore::kTopKSum && shape.top_k < shape.top_groups) continue;
      for (const ScoreFunction score : kAllScores) {
        for (const bool with_bias : {false, true}) {
          RoutingCase c = case_of(shape.num_experts, shape.top_k, score);
          c.num_tokens = pick_num_tokens(random, shape.num_experts, 6000);
          randomize(random, c);
          c.config.num_groups = shape.num_groups;
          c.config.top_groups = shape.top_groups;
          c.config.group_score = group_score;
          c.with_bias = with_bias;
          ASSERT_EQ(disagreement(c), "");
        }
      }
    }
  }
}

/// Group sums that overflow, in both directions and within one tree.
TEST(RoutingShapesOfGroups, Contract2_AnyGroupSum) {
  constexpr float kValues[] = {FLT_MAX,   -FLT_MAX, 0x1p103f, -0x1p103f, 0x1.fffffcp127f,
                               -0x1p127f, 0x1p102f, 0.0f,     1.0f};
  RandomStream random(251);
  for (int i = 0; i < 150; ++i) {
    RoutingCase c = case_of(72, 24, ScoreFunction::kIdentity);
    c.config.num_groups = 3;
    c.config.top_groups = 1;
    c.config.group_score = GroupScore::kTopKSum;
    if (i % 3 == 1) {
      c.config.num_groups = 9;
      c.config.top_groups = 3;
    }
    // Two groups of a maximum, a few values half a unit in its last place, and minima: opposed
    // infinities meet in the sum. The others hold anything.
    std::vector<float> row;
    const int64_t small = 4 + random.below(8);
    for (int64_t e = 0; e < 72; ++e) {
      const int64_t place = e % (72 / c.config.num_groups);
      const float opposed = place == 0 ? FLT_MAX : place <= small ? 0x1p103f : -FLT_MAX;
      row.push_back(i % 2 == 0 && e < 48 ? opposed : random.pick(kValues));
    }
    const int64_t num_tokens = i % 5 == 0 ? 1 : 17;
    std::vector<float> rows;
    for (int64_t t = 0; t < num_tokens; ++t) rows.insert(rows.end(), row.begin(), row.end());
    const Logits logits(rows, DataType::kFloat32, num_tokens, 72, 72);
    RoutingInputs inputs;
    inputs.logits = logits.view();
    const RoutedBatch expected = route(Router(c.config, Backend::kReference), c, inputs);
    for (const BackendVariant& variant : backend_variants()) {
      const ScopedCpuTarget target(variant.target);
      const Router router(c.config, variant.backend, variant.threads);
      ASSERT_EQ(difference(expected, route(router, c, inputs)), "") << variant.name << ' ' << i;
    }
  }
}

TEST(RoutingFuzz, AnyCaseAgrees) {
  RandomStream random(241);
  for (int i = 0; i < sanitized_share(1500); ++i) {
    const auto num_experts = static_cast<int32_t>(
        random.chance(50) ? random.pick(kExpertCounts) : 1 + random.below(kMaxExperts));
    const auto top_k = static_cast<int32_t>(1 + random.below(std::min(num_experts, kMaxTopK)));
    RoutingCase c = case_of(num_experts, top_k, random.pick(kAllScores));
    c.num_tokens = std::min<int64_t>(random.below(130), 1 + 4000 / num_experts);
    randomize(random, c);
    ASSERT_EQ(disagreement(c), "") << "iteration " << i;
  }
}

}  // namespace
}  // namespace switchyard::test

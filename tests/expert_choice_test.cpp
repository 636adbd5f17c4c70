// Expert choice: the reference against float64 and by hand, every other backend against the
// reference.
#include "switchyard/expert_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>

#include "switchyard/errors.h"
#include "tests/backend_variants.h"
#include "tests/guarded.h"
#include "tests/random_stream.h"
#include "tests/routing_inputs.h"

namespace switchyard::test {
namespace {

constexpr auto kOverExperts = ExpertChoiceScore::kSoftmaxOverExperts;
constexpr auto kOverTokens = ExpertChoiceScore::kSoftmaxOverTokens;

struct Chosen {
  std::vector<int32_t> token_ids;
  std::vector<uint32_t> gate_weights;
  bool intact = true;

  [[nodiscard]] float weight(size_t i) const { return std::bit_cast<float>(gate_weights[i]); }
};

using Mask = BackendVector<uint8_t>;

Chosen choose(const ExpertChoiceConfig& config, ConstTensorView logits, const Mask& mask,
              Backend backend, CpuThreads threads = {}, int64_t padding = 0) {
  const ExpertChoiceRouter router(config, backend, threads);
  const int64_t capacity = expert_choice_capacity(config, logits.rows);
  Guarded<int32_t> ids(config.num_experts, capacity, capacity + padding);
  Guarded<float> weights(config.num_experts, capacity, capacity + padding);
  const int64_t bytes = router.workspace_bytes(logits.rows);
  Guarded<std::byte> workspace(1, bytes, bytes);
  router.route({logits, {mask.data(), static_cast<int64_t>(mask.size())}},
               {ids.matrix(), weights.matrix()},
               {workspace.vector().data, static_cast<size_t>(bytes)});
  finish_backends();
  Chosen chosen;
  chosen.token_ids = ids.dense();
  for (const float weight : weights.dense()) {
    chosen.gate_weights.push_back(std::bit_cast<uint32_t>(weight));
  }
  chosen.intact = ids.intact() && weights.intact() && workspace.intact();
  return chosen;
}

std::string describe(const ExpertChoiceConfig& config, const Logits& logits, uint64_t seed) {
  std::ostringstream text;
  text << "T=" << logits.view().rows << " E=" << config.num_experts
       << " factor=" << config.capacity_factor << " fixed=" << config.fixed_capacity
       << (config.score == kOverExperts ? " over experts " : " over tokens ")
       << name_of(logits.view().dtype) << " seed=" << seed;
  return text.str();
}

/// Routes a batch everywhere, and returns the first difference in words.
std::string disagreement(const ExpertChoiceConfig& config, const Logits& logits, const Mask& mask,
                         uint64_t seed) {
  const Chosen expected = choose(config, logits.view(), mask, Backend::kReference);
  for (const BackendVariant& variant : backend_variants()) {
    const ScopedCpuTarget target(variant.target);
    const Chosen actual = choose(config, logits.view(), mask, variant.backend, variant.threads, 3);
    const std::string where = " on " + variant.name + " of " + describe(config, logits, seed);
    if (!actual.intact) return "a guard word was overwritten" + where;
    for (size_t i = 0; i < expected.token_ids.size(); ++i) {
      if (actual.token_ids[i] != expected.token_ids[i]) {
        return "token_ids[" + std::to_string(i) + "] is " + std::to_string(actual.token_ids[i]) +
               ", must be " + std::to_string(expected.token_ids[i]) + where;
      }
      if (actual.gate_weights[i] != expected.gate_weights[i]) {
        return "gate_weights[" + std::to_string(i) + "]" + where;
      }
    }
  }
  return "";
}

/// The same of a case drawn at random.
std::string disagreement(RandomStream& random, int32_t num_experts, int64_t num_tokens,
                         ExpertChoiceScore score) {
  const uint64_t seed = random.bits();
  constexpr double kFactors[] = {0.01, 0.5, 1.0, 2.0, 7.3, 1e300};
  ExpertChoiceConfig config;
  config.num_experts = num_experts;
  config.score = score;
  config.capacity_factor = random.pick(kFactors);
  if (random.chance(30)) config.fixed_capacity = 1 + random.below(2 * num_tokens + 1);
  const Logits logits(random.chance(40) ? Distribution::kNormal : random.pick(kAllDistributions),
                      random.pick(kAllDataTypes), num_tokens, num_experts,
                      num_experts + random.below(4), seed);
  Mask mask;
  if (random.chance(40)) {
    const int percent = random.chance(20) ? 98 : 30;
    for (int64_t t = 0; t < num_tokens; ++t) mask.push_back(random.chance(percent) ? 0 : 2);
  }
  return disagreement(config, logits, mask, seed);
}

TEST(ExpertChoice, Contract4_EveryBackendEqualsTheReference) {
  RandomStream random(801);
  for (const int32_t num_experts : {1, 2, 5, 8, 15, 16, 17, 33, 64, 100, 256, 300}) {
    for (const int64_t num_tokens : {0, 1, 2, 3, 7, 16, 17, 33, 64, 129}) {
      for (const ExpertChoiceScore score : {kOverExperts, kOverTokens}) {
        for (int repetition = 0; repetition < (num_experts < 100 ? 2 : 1); ++repetition) {
          ASSERT_EQ(disagreement(random, num_experts, num_tokens, score), "");
        }
      }
    }
  }
}

TEST(ExpertChoice, Contract1_AnyNumberOfExperts) {
  RandomStream random(805);
  for (const int32_t num_experts : {511, 512, 700, 2048}) {
    for (const int64_t num_tokens : {1, 9}) {
      for (const ExpertChoiceScore score : {kOverExperts, kOverTokens}) {
        ASSERT_EQ(disagreement(random, num_experts, num_tokens, score), "");
      }
    }
  }
}

/// Enough tokens for candidates to be thinned many times over, and for every way of sorting them.
TEST(ExpertChoice, Contract4_EveryBackendEqualsTheReferenceForManyTokens) {
  RandomStream random(811);
  for (const ExpertChoiceScore score : {kOverExperts, kOverTokens}) {
    for (const int64_t num_tokens : {511, 512, 513, 700, 1023, 1024, 1025, 1500}) {
      for (const int32_t num_experts : {1, 5}) {
        ASSERT_EQ(disagreement(random, num_experts, num_tokens, score), "");
      }
    }
    for (int repetition = 0; repetition < 4; ++repetition) {
      ASSERT_EQ(disagreement(random, 20, 2000 + random.below(100), score), "");
    }
  }
}

/// Sums over tokens that several levels of threads and blocks fold. Where few tokens have a finite
/// logit, every addition shows in the sum.
TEST(ExpertChoice, Contract4_SumsOverManyTokensFoldAlike) {
  for (const int64_t num_tokens : {2049, 8193, 40'000}) {
    for (const int64_t distance : {1, 16, 1024}) {
      const auto seed = static_cast<uint64_t>(num_tokens + distance);
      RandomStream random(seed);
      std::vector<float> values;
      for (int64_t token = 0; token < num_tokens; ++token) {
        for (int64_t expert = 0; expert < 3; ++expert) {
          const auto logit = static_cast<float>(random.normal());
          values.push_back(token % distance == expert % distance ? logit : -INFINITY);
        }
      }
      ExpertChoiceConfig config;
      config.num_experts = 3;
      config.fixed_capacity = 100;
      config.score = kOverTokens;
      const Logits logits(values, DataType::kFloat32, num_tokens, 3, 3);
      ASSERT_EQ(disagreement(config, logits, {}, seed), "");
    }
  }
}

TEST(ExpertChoice, TheReferenceAgreesWithFloat64) {
  for (const ExpertChoiceScore score : {kOverExperts, kOverTokens}) {
    const int64_t num_tokens = 60;
    const int32_t num_experts = 10;
    const Logits logits(Distribution::kNormal, DataType::kFloat32, num_tokens, num_experts,
                        num_experts, 821);
    std::vector<std::vector<double>> scores;
    for (int64_t t = 0; t < num_tokens; ++t) {
      scores.emplace_back();
      for (const float x : logits.row(t)) scores.back().push_back(std::exp(double{x}));
    }
    std::vector<double> column_sum(num_experts, 0.0);
    for (const auto& row : scores) {
      for (size_t e = 0; e < num_experts; ++e) column_sum[e] += row[e];
    }
    for (auto& row : scores) {
      const double row_sum = std::accumulate(row.begin(), row.end(), 0.0);
      for (size_t e = 0; e < num_experts; ++e) {
        row[e] /= score == kOverExperts ? row_sum : column_sum[e];
      }
    }
    ExpertChoiceConfig config;
    config.num_experts = num_experts;
    config.capacity_factor = 2.0;
    config.score = score;
    const Chosen chosen = choose(config, logits.view(), {}, Backend::kReference);
    for (size_t e = 0; e < num_experts; ++e) {
      std::vector<int32_t> order(static_cast<size_t>(num_tokens));
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return scores[static_cast<size_t>(a)][e] > scores[static_cast<size_t>(b)][e];
      });
      for (size_t place = 0; place < 12; ++place) {
        const int32_t token = chosen.token_ids[e * 12 + place];
        EXPECT_EQ(token, order[place]);
        const double expected = scores[static_cast<size_t>(token)][e];
        EXPECT_NEAR(chosen.weight(e * 12 + place), expected, 2e-6 * expected);
      }
    }
  }
}

class ExpertChoiceRules : public ::testing::TestWithParam<Backend> {
 protected:
  /// One expert, a column of logits.
  Chosen choose_from(const std::vector<float>& column, int64_t capacity, const Mask& mask = {},
                     ExpertChoiceScore score = kOverTokens) {
    const Logits logits(column, DataType::kFloat32, static_cast<int64_t>(column.size()), 1, 1);
    ExpertChoiceConfig config;
    config.num_experts = 1;
    config.fixed_capacity = capacity;
    config.score = score;
    return choose(config, logits.view(), mask, GetParam());
  }
};

using Ids = std::vector<int32_t>;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST_P(ExpertChoiceRules, TiesGoToTheLowerToken) {
  EXPECT_EQ(choose_from({1, 3, 3, 0.0f, -0.0f, 3}, 5).token_ids, (Ids{1, 2, 5, 0, 3}));
}

TEST_P(ExpertChoiceRules, WhatIsNotFiniteComesLastAtWeightZero) {
  for (const ExpertChoiceScore score : {kOverExperts, kOverTokens}) {
    const Chosen chosen = choose_from({kNaN, -5, kInfinity, -kInfinity, -200}, 5, {}, score);
    EXPECT_EQ(chosen.token_ids, (Ids{1, 4, 0, 2, 3}));
    for (size_t place = 2; place < 5; ++place) EXPECT_EQ(chosen.gate_weights[place], 0u);
    EXPECT_EQ(chosen.weight(0), 1.0f);
  }
}

TEST_P(ExpertChoiceRules, MaskedTokensAreChosenByNobody) {
  const Chosen chosen = choose_from({9, 1, 9, 2}, 3, {0, 1, 0, 1});
  EXPECT_EQ(chosen.token_ids, (Ids{3, 1, -1}));
  EXPECT_FLOAT_EQ(chosen.weight(0), 0.7310586f);
  EXPECT_EQ(chosen.gate_weights[2], 0u);
}

TEST_P(ExpertChoiceRules, CapacityStopsAtTheTokensThereAre) {
  EXPECT_EQ(choose_from({1, 2}, 100).token_ids, (Ids{1, 0}));
}

TEST_P(ExpertChoiceRules, RefusalsNameArgumentValueAndLimit) {
  const BackendVector<float> values(8, 0.0f);
  Guarded<int32_t> ids(2, 4, 4);
  Guarded<float> weights(2, 4, 4);
  ExpertChoiceConfig config;
  config.num_experts = 2;
  const auto refusal = [&](ExpertChoiceConfig c, MatrixView<const float> logits, int64_t mask_size,
                           int64_t capacity) {
    const Mask mask(static_cast<size_t>(mask_size), 1);
    BackendVector<std::byte> workspace(1 << 16);
    try {
      ExpertChoiceRouter(c, GetParam())
          .route({logits, {mask.data(), mask_size}},
                 {{ids.matrix().data, 2, capacity}, {weights.matrix().data, 2, capacity}},
                 workspace);
      finish_backends();
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const MatrixView<const float> good(values.data(), 4, 2);
  const auto changed = [&](auto member, auto value) {
    ExpertChoiceConfig c = config;
    c.*member = value;
    return refusal(c, good, 0, 2);
  };
  using Config = ExpertChoiceConfig;
  EXPECT_EQ(changed(&Config::num_experts, 0), "num_experts is 0, must be in [1, 2048]");
  EXPECT_EQ(changed(&Config::capacity_factor, 0.0),
            "capacity_factor is 0, must be finite and above 0");
  EXPECT_EQ(changed(&Config::fixed_capacity, int64_t{-1}),
            "fixed_capacity is -1, must be 0 or more");
  EXPECT_EQ(changed(&Config::score, static_cast<ExpertChoiceScore>(4)),
            "score is 4, must be in [0, 1]");
  EXPECT_EQ(refusal(config, {values.data(), 2, 3}, 0, 1), "logits has 3 columns, must have 2");
  EXPECT_EQ(refusal(config, good, 3, 2), "token_mask has 3 elements, must have 4");
  EXPECT_EQ(refusal(config, good, 0, 3), "token_ids has 3 columns, must have 2");
  EXPECT_TRUE(ids.untouched() && weights.untouched());
  EXPECT_EQ(refusal(config, good, 4, 2), "");
}

TEST_P(ExpertChoiceRules, ATooSmallWorkspaceIsRefused) {
  ExpertChoiceConfig config;
  config.num_experts = 2;
  const BackendVector<float> values(8, 0.0f);
  Guarded<int32_t> ids(2, 2, 2);
  Guarded<float> weights(2, 2, 2);
  const ExpertChoiceRouter router(config, GetParam());
  EXPECT_EQ(router.backend(), GetParam());
  const int64_t needed = router.workspace_bytes(4);
  if (needed == 0) return;
  BackendVector<std::byte> workspace(static_cast<size_t>(needed - 1));
  EXPECT_THROW(router.route({MatrixView<const float>(values.data(), 4, 2)},
                            {ids.matrix(), weights.matrix()}, workspace),
               InvalidArgument);
  EXPECT_TRUE(ids.untouched() && weights.untouched());
}

TEST_P(ExpertChoiceRules, WorkspaceForMoreTokensIsEnoughForFewer) {
  for (const int64_t fixed_capacity : {0, 3, 600}) {
    for (const ExpertChoiceScore score : {kOverExperts, kOverTokens}) {
      ExpertChoiceConfig config;
      config.num_experts = 3;
      config.fixed_capacity = fixed_capacity;
      config.score = score;
      const ExpertChoiceRouter router(config, GetParam());
      int64_t before = 0;
      for (int64_t num_tokens = 0; num_tokens < 3000; ++num_tokens) {
        const int64_t bytes = router.workspace_bytes(num_tokens);
        ASSERT_GE(bytes, before) << num_tokens;
        before = bytes;
      }
      EXPECT_THROW((void)router.workspace_bytes(-1), InvalidArgument);
    }
  }
}

std::vector<Backend> backends() {
  return {Backend::kReference, backend_variants().front().backend};
}

std::string test_name(const ::testing::TestParamInfo<Backend>& test) { return name_of(test.param); }

INSTANTIATE_TEST_SUITE_P(Backends, ExpertChoiceRules, ::testing::ValuesIn(backends()), test_name);

TEST(ExpertChoiceCapacity, IsTheFlooredShareWithinItsLimits) {
  ExpertChoiceConfig config;
  config.num_experts = 8;
  config.capacity_factor = 1.25;
  EXPECT_EQ(expert_choice_capacity(config, 0), 0);
  EXPECT_EQ(expert_choice_capacity(config, 1), 1);
  EXPECT_EQ(expert_choice_capacity(config, 100), 15);
  config.capacity_factor = 1e308;
  EXPECT_EQ(expert_choice_capacity(config, 100), 100);
  config.fixed_capacity = 30;
  EXPECT_EQ(expert_choice_capacity(config, 100), 30);
  EXPECT_EQ(expert_choice_capacity(config, 20), 20);
  EXPECT_THROW(expert_choice_capacity(config, -1), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test

// Routing on every CPU variant equals the reference for the configurations of published models.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <ostream>

#include "tests/backend_variants.h"
#include "tests/routing_conformance.h"

namespace switchyard::test {
namespace {

struct Model {
  const char* name;
  RouterConfig config;
  bool bias = false;
};

void PrintTo(const Model& model, std::ostream* out) { *out << model.name; }

constexpr RouterConfig softmax(int32_t num_experts, int32_t top_k, bool renormalize) {
  return {.num_experts = num_experts, .top_k = top_k, .renormalize = renormalize};
}

constexpr RouterConfig scored(ScoreFunction score, int32_t num_experts, int32_t top_k, float scale,
                              bool renormalize = true) {
  return {.num_experts = num_experts,
          .top_k = top_k,
          .score_function = score,
          .renormalize = renormalize,
          .routed_scaling_factor = scale};
}

constexpr RouterConfig grouped(RouterConfig config, int32_t num_groups, int32_t top_groups,
                               GroupScore group_score) {
  config.num_groups = num_groups;
  config.top_groups = top_groups;
  config.group_score = group_score;
  return config;
}

constexpr RouterConfig shared(RouterConfig config, int32_t count) {
  config.num_shared_experts = count;
  return config;
}

constexpr RouterConfig scaled(RouterConfig config, float scale) {
  config.routed_scaling_factor = scale;
  return config;
}

constexpr auto kSigmoid = ScoreFunction::kSigmoid;
constexpr auto kSqrtSoftplus = ScoreFunction::kSqrtSoftplus;

// Where a model's renormalisation or scale is not published, both settings or a plausible scale.
constexpr Model kModels[] = {
    {"mixtral_8x7b", softmax(8, 2, true)},
    {"deepseek_v2",
     shared(scaled(grouped(softmax(160, 6, false), 8, 3, GroupScore::kMax), 16.0f), 2)},
    {"deepseek_v2_lite", softmax(64, 6, false)},
    {"deepseek_v3", shared(grouped(scored(kSigmoid, 256, 8, 2.5f), 8, 4, GroupScore::kTop2Sum), 1),
     true},
    {"deepseek_v4_flash", shared(scored(kSqrtSoftplus, 256, 6, 1.5f), 1), true},
    {"kimi_k2", shared(scored(kSigmoid, 384, 8, 2.827f), 1), true},
    {"kimi_k3", scored(kSigmoid, 896, 16, 2.827f), true},
    {"kimi_k3_raw", scored(kSigmoid, 896, 16, 2.827f, false), true},
    {"qwen3_30b_a3b", softmax(128, 8, true)},
    {"qwen3_next", shared(softmax(512, 10, true), 1)},
    {"qwen2_moe", softmax(60, 4, false)},
    {"olmoe", softmax(64, 8, false)},
    {"llama_4_scout", shared(scored(kSigmoid, 16, 1, 1.0f, false), 1)},
    {"llama_4_maverick", shared(scored(kSigmoid, 128, 1, 1.0f, false), 1)},
    {"gpt_oss_20b", softmax(32, 4, true)},
    {"gpt_oss_120b", softmax(128, 4, true)},
    {"nemotron_3_nano", scored(kSigmoid, 128, 6, 2.5f), true},
    {"nemotron_3_nano_raw", scored(kSigmoid, 128, 6, 2.5f, false), true},
    {"nemotron_3_super", scored(kSigmoid, 512, 22, 5.0f), true},
    {"nemotron_3_super_raw", scored(kSigmoid, 512, 22, 5.0f, false), true},
    {"minimax_m2", scored(kSigmoid, 256, 8, 1.0f), true},
    {"minimax_m2_raw", scored(kSigmoid, 256, 8, 1.0f, false), true},
    {"glm_4_5_air", scored(kSigmoid, 128, 8, 1.0f), true},
};

class RoutingModels : public ::testing::TestWithParam<Model> {};

TEST_P(RoutingModels, Contract4_SameBitsEverywhere) {
  uint64_t seed = 501;
  for (const DataType dtype : kAllDataTypes) {
    for (const Distribution distribution : kAllDistributions) {
      for (const int64_t num_tokens : {1, 16, 35}) {
        RoutingCase c;
        c.config = GetParam().config;
        c.with_bias = GetParam().bias;
        c.num_tokens = num_tokens;
        c.distribution = distribution;
        c.dtype = dtype;
        c.with_losses = num_tokens == 16;
        c.weight_dtype = num_tokens == 35 ? DataType::kBFloat16 : DataType::kFloat32;
        c.seed = ++seed;
        ASSERT_EQ(disagreement(c), "");
      }
    }
  }
}

std::string test_name(const ::testing::TestParamInfo<Model>& test) { return test.param.name; }

INSTANTIATE_TEST_SUITE_P(Models, RoutingModels, ::testing::ValuesIn(kModels), test_name);

/// A bias that shifts all experts alike leaves every choice, so nothing at all may change.
TEST(RoutingBias, Contract5_BiasNeverChangesWeights) {
  for (const ScoreFunction score : kAllScores) {
    for (const bool renormalize : {true, false}) {
      RoutingCase c;
      c.config = {.num_experts = 64,
                  .top_k = 64,
                  .score_function = score,
                  .renormalize = renormalize,
                  .routed_scaling_factor = 2.5f};
      c.num_tokens = 21;
      const RoutingBatch batch(c);
      for (const BackendVariant& variant : backend_variants()) {
        const ScopedCpuTarget target(variant.target);
        // With every expert chosen, the bias can only reorder; each expert keeps its weight. The
        // sum of the renormalised ones is taken in that other order, hence not all bits.
        const Router router(c.config, variant.backend, variant.threads);
        const RoutedBatch plain = route(router, c, batch.inputs());
        BackendVector<float> bias;
        for (int e = 0; e < 64; ++e) bias.push_back(static_cast<float>((e * 37) % 64));
        RoutingInputs inputs = batch.inputs();
        inputs.selection_bias = {bias.data(), 64};
        const RoutedBatch biased = route(router, c, inputs);
        for (size_t token = 0; token < 21; ++token) {
          std::vector<float> weight_of(64);
          for (size_t slot = 0; slot < 64; ++slot) {
            weight_of[static_cast<size_t>(plain.expert_ids[token * 64 + slot])] =
                std::bit_cast<float>(plain.gate_weights[token * 64 + slot]);
          }
          for (size_t slot = 0; slot < 64; ++slot) {
            const float expected =
                weight_of[static_cast<size_t>(biased.expert_ids[token * 64 + slot])];
            const float actual = std::bit_cast<float>(biased.gate_weights[token * 64 + slot]);
            if (renormalize && score != ScoreFunction::kIdentity) {
              ASSERT_NEAR(actual, expected, 2e-6 * std::fabs(expected)) << variant.name;
            } else if (!renormalize) {
              ASSERT_EQ(actual, expected) << variant.name << describe(c);
            }
          }
        }
      }
    }
  }
}

/// Two biases a float32 apart, the same bfloat16: merging them would hand the choice to the id.
TEST(RoutingBias, Contract5_BiasStaysFloat32) {
  for (const int32_t num_experts : {8, 64, 256}) {
    const std::vector<float> values(static_cast<size_t>(num_experts), 0.0f);
    const Logits logits(values, DataType::kBFloat16, 1, num_experts, num_experts);
    BackendVector<float> bias(static_cast<size_t>(num_experts), 0.5f);
    bias[static_cast<size_t>(num_experts - 1)] = 0.5f + 0x1p-22f;
    RoutingCase c;
    c.config = {.num_experts = num_experts, .top_k = 1, .score_function = ScoreFunction::kSigmoid};
    RoutingInputs inputs;
    inputs.logits = logits.view();
    inputs.selection_bias = {bias.data(), num_experts};
    for (const BackendVariant& variant : backend_variants()) {
      const ScopedCpuTarget target(variant.target);
      const Router router(c.config, variant.backend, variant.threads);
      EXPECT_EQ(route(router, c, inputs).expert_ids[0], num_experts - 1) << variant.name;
    }
  }
}

/// Tiny and infinite biases, and ones that leave no expert to rank.
TEST(RoutingBias, BiasesThatAreNotFiniteTakeTheirExpertsOut) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  RoutingCase c;
  c.config = {.num_experts = 4, .top_k = 2, .score_function = ScoreFunction::kSigmoid};
  const Logits logits({4, 3, 2, 1}, DataType::kFloat32, 1, 4, 4);
  RoutingInputs inputs;
  inputs.logits = logits.view();
  const BackendVector<float> some = {-kInfinity, 0, kInfinity, 0};
  const BackendVector<float> none(4, std::numeric_limits<float>::quiet_NaN());
  for (const BackendVariant& variant : backend_variants()) {
    const ScopedCpuTarget target(variant.target);
    const Router router(c.config, variant.backend, variant.threads);
    inputs.selection_bias = {some.data(), 4};
    EXPECT_EQ(route(router, c, inputs).expert_ids, (std::vector<int32_t>{1, 3})) << variant.name;
    inputs.selection_bias = {none.data(), 4};
    const RoutedBatch nothing = route(router, c, inputs);
    EXPECT_EQ(nothing.expert_ids, (std::vector<int32_t>{0, 1})) << variant.name;
    EXPECT_EQ(nothing.gate_weights, (std::vector<uint32_t>{0, 0})) << variant.name;
    EXPECT_EQ(nothing.num_degenerate_rows, 0) << variant.name << ": the logits are finite";
  }
}

}  // namespace
}  // namespace switchyard::test

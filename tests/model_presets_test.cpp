// Presets: read from models.json, refused where unknown or unverified.
#include "switchyard/model_presets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "switchyard/errors.h"

namespace switchyard {
namespace {

template <typename Function>
std::string refusal(const Function& make) {
  try {
    make();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "(accepted)";
}

TEST(ModelPresets, AreSortedByNameAndDistinct) {
  const auto presets = model_presets();
  ASSERT_GE(presets.size(), 19u);
  EXPECT_TRUE(std::is_sorted(presets.begin(), presets.end(),
                             [](const auto& a, const auto& b) { return a.name < b.name; }));
  for (const ModelPreset& preset : presets) EXPECT_EQ(&find_model_preset(preset.name), &preset);
}

TEST(ModelPresets, DeepSeekV3SaysEverything) {
  const ModelPreset& preset = find_model_preset("deepseek-v3");
  EXPECT_TRUE(preset.has_selection_bias);
  EXPECT_EQ(preset.num_shared_experts, 1);
  RouterConfig expected;
  expected.num_experts = 256;
  expected.top_k = 8;
  expected.score_function = ScoreFunction::kSigmoid;
  expected.renormalize = true;
  expected.routed_scaling_factor = 2.5f;
  expected.num_groups = 8;
  expected.top_groups = 4;
  expected.group_score = GroupScore::kTop2Sum;
  EXPECT_EQ(to_router_config(preset), expected);
}

TEST(ModelPresets, EveryPresetIsAValidConfigurationOnceCompleted) {
  for (const ModelPreset& preset : model_presets()) {
    const RouterConfig config = to_router_config(preset, true, 1.0f);
    EXPECT_EQ(config.num_shared_experts, 0) << preset.name;
    EXPECT_EQ(config.routed_scaling_factor, 1.0f) << preset.name;
  }
}

TEST(ModelPresets, WhatIsNotVerifiedMustBeGiven) {
  const ModelPreset& kimi = find_model_preset("kimi-k3");
  EXPECT_EQ(kimi.renormalize, std::nullopt);
  EXPECT_EQ(refusal([&] { to_router_config(kimi); }),
            "model 'kimi-k3': renormalize is not verified and must be given");
  EXPECT_EQ(refusal([&] { to_router_config(kimi, false); }),
            "model 'kimi-k3': routed_scaling_factor is not verified and must be given");
  const RouterConfig config = to_router_config(kimi, false, 2.0f);
  EXPECT_FALSE(config.renormalize);
  EXPECT_EQ(config.routed_scaling_factor, 2.0f);
  EXPECT_EQ(refusal([&] { to_router_config(find_model_preset("glm-4.5-air")); }),
            "model 'glm-4.5-air': routed_scaling_factor is not verified and must be given");
}

TEST(ModelPresets, WhatIsGivenIsStillChecked) {
  EXPECT_THROW(to_router_config(find_model_preset("olmoe"), {}, -1.0f), InvalidArgument);
}

TEST(ModelPresets, AnUnknownNameListsTheKnownOnes) {
  const std::string message = refusal([] { find_model_preset("gpt-9"); });
  EXPECT_NE(message.find("'gpt-9'"), message.npos);
  EXPECT_NE(message.find("mixtral-8x7b"), message.npos);
  EXPECT_THROW(find_model_preset(""), InvalidArgument);
}

}  // namespace
}  // namespace switchyard

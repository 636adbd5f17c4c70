// Routing configurations of published models.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "switchyard/router.h"

namespace switchyard {

/// What is known of a model's router. Fields that could not be verified are empty.
struct ModelPreset {
  std::string_view name;
  int32_t num_experts = 0;
  int32_t top_k = 0;
  ScoreFunction score_function = ScoreFunction::kSoftmax;
  std::optional<bool> renormalize;
  std::optional<float> routed_scaling_factor;
  int32_t num_groups = 1;
  int32_t top_groups = 1;
  GroupScore group_score = GroupScore::kMax;
  bool has_selection_bias = false;
  int32_t num_shared_experts = 0;  ///< of the model; to_router_config() does not append them
};

/// All presets, by name.
std::span<const ModelPreset> model_presets();

/// @throws InvalidArgument  when there is no such preset, listing those there are.
const ModelPreset& find_model_preset(std::string_view name);

/// The preset as a router's configuration, without appended shared experts.
///
/// @param renormalize, routed_scaling_factor  used instead of the preset's where given.
/// @throws InvalidArgument  when one of them is neither known nor given, naming it.
RouterConfig to_router_config(const ModelPreset& preset, std::optional<bool> renormalize = {},
                              std::optional<float> routed_scaling_factor = {});

}  // namespace switchyard

// Presets are read once, at first use, from models.json, which is compiled in.
#include "switchyard/model_presets.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cpu/refuse.h"
#include "models_json.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

struct Presets {
  Json json;  // owns the names
  std::vector<ModelPreset> list;
};

ScoreFunction score_function(const std::string& name) {
  if (name == "softmax") return ScoreFunction::kSoftmax;
  if (name == "sigmoid") return ScoreFunction::kSigmoid;
  if (name == "sqrt_softplus") return ScoreFunction::kSqrtSoftplus;
  if (name == "identity") return ScoreFunction::kIdentity;
  throw Error("models.json: unknown score '" + name + "'");
}

GroupScore group_score(const std::string& name) {
  if (name == "max") return GroupScore::kMax;
  if (name == "top2_sum") return GroupScore::kTop2Sum;
  if (name == "topk_sum") return GroupScore::kTopKSum;
  throw Error("models.json: unknown group_score '" + name + "'");
}

template <typename T>
std::optional<T> known(const Json& value) {
  if (value.is_null()) return std::nullopt;
  return value.get<T>();
}

Presets read_presets() {
  Presets presets;
  presets.json = Json::parse(cpu::kModelsJson);
  // A std::map: by name, and its keys stay where they are when the whole is moved.
  const auto& models = presets.json.at("models").get_ref<const Json::object_t&>();
  for (const auto& [name, model] : models) {
    ModelPreset preset;
    preset.name = name;
    preset.num_experts = model.at("num_experts").get<int32_t>();
    preset.top_k = model.at("top_k").get<int32_t>();
    preset.score_function = score_function(model.at("score").get<std::string>());
    preset.renormalize = known<bool>(model.at("renormalize"));
    preset.routed_scaling_factor = known<float>(model.at("scale"));
    preset.num_groups = model.value("groups", 1);
    preset.top_groups = model.value("top_groups", 1);
    preset.group_score = group_score(model.value("group_score", "max"));
    preset.has_selection_bias = model.value("bias", false);
    preset.num_shared_experts = model.value("shared_experts", 0);
    presets.list.push_back(preset);
  }
  return presets;
}

const std::vector<ModelPreset>& presets() {
  static const Presets kPresets = read_presets();
  return kPresets.list;
}

}  // namespace

std::span<const ModelPreset> model_presets() { return presets(); }

const ModelPreset& find_model_preset(std::string_view name) {
  const auto& list = presets();
  const auto found = std::find_if(list.begin(), list.end(),
                                  [&](const ModelPreset& preset) { return preset.name == name; });
  if (found != list.end()) return *found;
  std::string names;
  for (const ModelPreset& preset : list)
    names.append(names.empty() ? "" : ", ").append(preset.name);
  cpu::refuse("model '", name, "' is not known; there are ", names);
}

RouterConfig to_router_config(const ModelPreset& preset, std::optional<bool> renormalize,
                              std::optional<float> routed_scaling_factor) {
  if (!renormalize) renormalize = preset.renormalize;
  if (!routed_scaling_factor) routed_scaling_factor = preset.routed_scaling_factor;
  const auto missing = [&](const char* field) {
    cpu::refuse("model '", preset.name, "': ", field, " is not verified and must be given");
  };
  if (!renormalize) missing("renormalize");
  if (!routed_scaling_factor) missing("routed_scaling_factor");
  RouterConfig config;
  config.num_experts = preset.num_experts;
  config.top_k = preset.top_k;
  config.score_function = preset.score_function;
  config.renormalize = *renormalize;
  config.routed_scaling_factor = *routed_scaling_factor;
  config.num_groups = preset.num_groups;
  config.top_groups = preset.top_groups;
  config.group_score = preset.group_score;
  validate(config);
  return config;
}

}  // namespace switchyard

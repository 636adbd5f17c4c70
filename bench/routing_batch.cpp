#include "bench/routing_batch.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>

#include "switchyard/model_presets.h"

namespace switchyard::bench {

std::vector<RoutingCase> preset_cases() {
  std::vector<RoutingCase> cases;
  for (const ModelPreset& preset : model_presets()) {
    cases.push_back({std::string(preset.name),
                     to_router_config(preset, preset.renormalize.value_or(true),
                                      preset.routed_scaling_factor.value_or(1.0f)),
                     preset.has_selection_bias});
  }
  return cases;
}

RoutingCase softmax_case(int32_t num_experts, int32_t top_k, bool renormalize) {
  RoutingCase routing_case;
  routing_case.name = std::to_string(num_experts) + ":" + std::to_string(top_k);
  if (!renormalize) routing_case.name += "-raw";
  routing_case.config.num_experts = num_experts;
  routing_case.config.top_k = top_k;
  routing_case.config.renormalize = renormalize;
  return routing_case;
}

RoutingBatch::RoutingBatch(const RoutingCase& routing_case, int64_t num_tokens, DataType dtype,
                           Logits kind)
    : config_(routing_case.config), num_tokens_(num_tokens), dtype_(dtype) {
  const int64_t row_bytes = config_.num_experts * size_of(dtype);
  const int64_t calls = std::max<int64_t>(1, (1 << 20) / (row_bytes * num_tokens) + 1);
  num_rows_ = calls * num_tokens;
  const auto elements = static_cast<size_t>(num_rows_ * config_.num_experts);
  std::mt19937 engine(7);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  // Drawing millions of numbers would take longer than the measurement: rows repeat after these, at
  // a length that is a multiple of no row's.
  static const std::vector<float> kPool = [&] {
    std::vector<float> values(1000003);
    for (float& value : values) value = normal(engine);
    return values;
  }();
  size_t next = 0;
  const auto make = [&] {
    switch (kind) {
      case Logits::kAllEqual:
        return 1.25f;
      case Logits::kAllDenormal:
        return 1e-40f * static_cast<float>(1 + engine() % 64);
      case Logits::kAllNan:
        return std::numeric_limits<float>::quiet_NaN();
      case Logits::kNormal:
        break;
    }
    next = next + 1 < kPool.size() ? next + 1 : 0;
    return kPool[next];
  };
  if (dtype == DataType::kFloat32) {
    float_logits_.resize(elements);
    for (float& logit : float_logits_) logit = make();
  } else {
    narrow_logits_.resize(elements);
    for (BFloat16& logit : narrow_logits_) logit = to_bfloat16(make());
  }
  if (routing_case.has_bias) {
    bias_.resize(static_cast<size_t>(config_.num_experts));
    for (float& bias : bias_) bias = 0.01f * normal(engine);
  }
  expert_ids_ = Buffer<int32_t>(num_tokens * config_.top_k);
  gate_weights_ = Buffer<float>(num_tokens * config_.top_k);
}

int64_t RoutingBatch::bytes() const {
  return num_tokens_ * (config_.num_experts * size_of(dtype_) + 8 * config_.top_k);
}

ConstTensorView RoutingBatch::logits() const {
  const int64_t offset = first_ * config_.num_experts;
  const void* data = dtype_ == DataType::kFloat32
                         ? static_cast<const void*>(float_logits_.data() + offset)
                         : static_cast<const void*>(narrow_logits_.data() + offset);
  return {data, dtype_, num_tokens_, config_.num_experts, config_.num_experts};
}

RoutingInputs RoutingBatch::inputs() const {
  RoutingInputs inputs;
  inputs.logits = logits();
  inputs.selection_bias = {bias(), static_cast<int64_t>(bias_.size())};
  return inputs;
}

RoutingResult RoutingBatch::result() {
  RoutingResult result;
  result.expert_ids = expert_ids_.matrix(num_tokens_, config_.top_k);
  result.gate_weights = gate_weights_.matrix(num_tokens_, config_.top_k);
  return result;
}

void RoutingBatch::check_outputs() {
  // The reference is slow; any row tells as much as any other.
  const int64_t checked = std::min<int64_t>(num_tokens_, 64);
  Buffer<int32_t> ids(checked * config_.top_k);
  Buffer<float> weights(checked * config_.top_k);
  RoutingResult expected;
  expected.expert_ids = ids.matrix(checked, config_.top_k);
  expected.gate_weights = weights.matrix(checked, config_.top_k);
  RoutingInputs first_rows = inputs();
  first_rows.logits.rows = checked;
  Router(config_, Backend::kReference).route(first_rows, expected);
  if (std::memcmp(ids.data(), expert_ids_.data(), ids.bytes().size()) != 0 ||
      std::memcmp(weights.data(), gate_weights_.data(), weights.bytes().size()) != 0) {
    throw std::runtime_error("the timed router does not give the reference's bits");
  }
}

}  // namespace switchyard::bench

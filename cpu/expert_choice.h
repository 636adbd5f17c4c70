// Expert choice on the CPU: the vectorised form.
#pragma once

#include <cstdint>
#include <memory>

#include "switchyard/expert_choice_backend.h"

namespace switchyard::cpu {

/// One call, checked.
struct ExpertChoiceCall {
  ExpertChoiceScore score = ExpertChoiceScore::kSoftmaxOverExperts;
  ConstTensorView logits;
  VectorView<const uint8_t> token_mask;
  MatrixView<int32_t> token_ids;
  MatrixView<float> gate_weights;

  ExpertChoiceCall(const ExpertChoiceConfig& config, const ExpertChoiceInputs& inputs,
                   const ExpertChoiceResult& result)
      : score(config.score),
        logits(inputs.logits),
        token_mask(inputs.token_mask),
        token_ids(result.token_ids),
        gate_weights(result.gate_weights) {}

  [[nodiscard]] int64_t num_tokens() const { return logits.rows; }
  [[nodiscard]] int64_t num_experts() const { return logits.cols; }
  [[nodiscard]] int64_t capacity() const { return token_ids.cols; }
  [[nodiscard]] bool takes_part(int64_t token) const {
    return token_mask.empty() || token_mask[token] != 0;
  }
};

std::unique_ptr<ExpertChoiceRouter::Implementation> make_cpu_expert_choice_router(
    const ExpertChoiceConfig& config, const CpuThreads& threads);

}  // namespace switchyard::cpu

// Expert choice on the CPU: the vectorised form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cpu/threads.h"
#include "switchyard/expert_choice.h"

namespace switchyard::cpu {

/// One call, checked.
struct ExpertChoiceCall {
  ExpertChoiceScore score = ExpertChoiceScore::kSoftmaxOverExperts;
  ConstTensorView logits;
  VectorView<const uint8_t> token_mask;
  MatrixView<int32_t> token_ids;
  MatrixView<float> gate_weights;

  [[nodiscard]] int64_t num_tokens() const { return logits.rows; }
  [[nodiscard]] int64_t num_experts() const { return logits.cols; }
  [[nodiscard]] int64_t capacity() const { return token_ids.cols; }
  [[nodiscard]] bool takes_part(int64_t token) const {
    return token_mask.empty() || token_mask[token] != 0;
  }
};

int64_t choose_tokens_workspace_bytes(ExpertChoiceScore score, int64_t num_tokens,
                                      int64_t num_experts, int64_t capacity,
                                      const ThreadTeam& team);
void choose_tokens(const ExpertChoiceCall& call, std::span<std::byte> workspace,
                   const ThreadTeam& team);

}  // namespace switchyard::cpu

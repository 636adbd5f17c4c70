// The front door of expert choice: checks a call, then hands over.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/backend_registry.h"
#include "cpu/expert_choice.h"
#include "cpu/reference/expert_choice.h"
#include "cpu/refuse.h"
#include "cpu/view_checks.h"

namespace switchyard {

using cpu::check_matrix;
using cpu::check_optional_vector;
using cpu::refuse;

void validate(const ExpertChoiceConfig& config) {
  if (config.num_experts < 1 || config.num_experts > kMaxExperts) {
    refuse("num_experts is ", config.num_experts, ", must be in [1, ", kMaxExperts, "]");
  }
  if (!std::isfinite(config.capacity_factor) || config.capacity_factor <= 0.0) {
    refuse("capacity_factor is ", config.capacity_factor, ", must be finite and above 0");
  }
  if (config.fixed_capacity < 0) {
    refuse("fixed_capacity is ", config.fixed_capacity, ", must be 0 or more");
  }
  if (config.score > ExpertChoiceScore::kSoftmaxOverTokens) {
    refuse("score is ", static_cast<int>(config.score), ", must be in [0, 1]");
  }
}

int64_t expert_choice_capacity(const ExpertChoiceConfig& config, int64_t num_tokens) {
  validate(config);
  if (num_tokens < 0) refuse("num_tokens is ", num_tokens, ", must be 0 or more");
  if (config.fixed_capacity > 0) return std::min(config.fixed_capacity, num_tokens);
  const double share =
      config.capacity_factor * static_cast<double>(num_tokens) / config.num_experts;
  if (share >= static_cast<double>(num_tokens)) return num_tokens;
  return std::min(std::max<int64_t>(1, static_cast<int64_t>(share)), num_tokens);
}

int64_t expert_choice_workspace_bytes(const ExpertChoiceConfig& config, int64_t max_tokens,
                                      Backend backend, CpuThreads threads) {
  const int64_t capacity = expert_choice_capacity(config, max_tokens);
  if (cpu::resolve_host_backend(backend, "expert choice") == Backend::kReference) return 0;
  return cpu::choose_tokens_workspace_bytes(config.score, max_tokens, config.num_experts, capacity,
                                            cpu::ThreadTeam(threads));
}

void route_expert_choice(const ExpertChoiceConfig& config, ConstTensorView logits,
                         VectorView<const uint8_t> token_mask, MatrixView<int32_t> token_ids,
                         MatrixView<float> gate_weights, std::span<std::byte> workspace,
                         Backend backend, CpuThreads threads, StreamView) {
  validate(config);
  if (logits.dtype > DataType::kBFloat16) {
    refuse("logits have element type ", static_cast<int>(logits.dtype),
           ", must be F32, F16 or BF16");
  }
  const int64_t num_tokens = logits.rows;
  check_matrix("logits", logits, num_tokens, config.num_experts);
  if (num_tokens > std::numeric_limits<int32_t>::max()) {
    refuse("logits have ", num_tokens, " rows, must have at most ",
           std::numeric_limits<int32_t>::max());
  }
  check_optional_vector("token_mask", token_mask, num_tokens);
  const int64_t capacity = expert_choice_capacity(config, num_tokens);
  check_matrix("token_ids", token_ids, config.num_experts, capacity);
  check_matrix("gate_weights", gate_weights, config.num_experts, capacity);

  const cpu::ExpertChoiceCall call{config.score, logits, token_mask, token_ids, gate_weights};
  if (cpu::resolve_host_backend(backend, "expert choice") == Backend::kReference) {
    cpu::reference::choose_tokens(call);
    return;
  }
  const cpu::ThreadTeam team(threads);
  const int64_t needed = cpu::choose_tokens_workspace_bytes(config.score, num_tokens,
                                                            config.num_experts, capacity, team);
  if (static_cast<int64_t>(workspace.size()) < needed) {
    refuse("workspace holds ", workspace.size(), " bytes, must hold ", needed);
  }
  cpu::choose_tokens(call, workspace, team);
}

}  // namespace switchyard

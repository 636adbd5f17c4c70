// The front door of expert choice: checks the config once and every call's shapes, then hands over.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/backend_registry.h"
#include "cpu/call_checks.h"
#include "cpu/refuse.h"
#include "cpu/view_checks.h"
#include "switchyard/expert_choice.h"
#include "switchyard/expert_choice_backend.h"

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

namespace {

void check_call(const ExpertChoiceConfig& config, const ExpertChoiceInputs& inputs,
                const ExpertChoiceResult& result) {
  const ConstTensorView& logits = inputs.logits;
  const int64_t num_tokens = logits.rows;
  cpu::check_logits(logits, num_tokens, config.num_experts);
  if (num_tokens > std::numeric_limits<int32_t>::max()) {
    refuse("logits have ", num_tokens, " rows, must have at most ",
           std::numeric_limits<int32_t>::max());
  }
  check_optional_vector("token_mask", inputs.token_mask, num_tokens);
  const int64_t capacity = expert_choice_capacity(config, num_tokens);
  check_matrix("token_ids", result.token_ids, config.num_experts, capacity);
  check_matrix("gate_weights", result.gate_weights, config.num_experts, capacity);
}

}  // namespace

ExpertChoiceRouter::ExpertChoiceRouter(const ExpertChoiceConfig& config, Backend backend,
                                       CpuThreads threads) {
  validate(config);
  implementation_ = cpu::make_expert_choice_router(config, backend, threads);
}

ExpertChoiceRouter::~ExpertChoiceRouter() = default;
ExpertChoiceRouter::ExpertChoiceRouter(ExpertChoiceRouter&&) noexcept = default;
ExpertChoiceRouter& ExpertChoiceRouter::operator=(ExpertChoiceRouter&&) noexcept = default;

const ExpertChoiceConfig& ExpertChoiceRouter::config() const { return implementation_->config; }

Backend ExpertChoiceRouter::backend() const { return implementation_->backend; }

int64_t ExpertChoiceRouter::workspace_bytes(int64_t max_tokens) const {
  if (max_tokens < 0) refuse("max_tokens is ", max_tokens, ", must be 0 or more");
  return implementation_->workspace_bytes(max_tokens);
}

void ExpertChoiceRouter::route(const ExpertChoiceInputs& inputs, const ExpertChoiceResult& result,
                               std::span<std::byte> workspace, StreamView stream) const {
  check_call(config(), inputs, result);
  cpu::check_workspace(workspace, implementation_->workspace_bytes(inputs.logits.rows));
  implementation_->route(inputs, result, workspace, stream);
}

}  // namespace switchyard

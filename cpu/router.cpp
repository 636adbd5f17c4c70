// The front door of routing: checks the config once and every call's shapes, then hands over.
#include "switchyard/router.h"

#include <cmath>

#include "cpu/backend_registry.h"
#include "cpu/call_checks.h"
#include "cpu/refuse.h"
#include "cpu/view_checks.h"
#include "switchyard/router_backend.h"
#include "switchyard/router_losses.h"

namespace switchyard {

using cpu::check_matrix;
using cpu::check_optional_vector;
using cpu::check_range;
using cpu::refuse;

void validate(const RouterConfig& config) {
  const auto in_range = [](const char* name, int32_t value, int32_t low, int32_t high) {
    if (value < low || value > high) {
      refuse(name, " is ", value, ", must be in [", low, ", ", high, "]");
    }
  };
  in_range("num_experts", config.num_experts, 1, kMaxExperts);
  in_range("top_k", config.top_k, 1, kMaxTopK);
  if (config.top_k > config.num_experts) {
    refuse("top_k is ", config.top_k, ", must not exceed num_experts, ", config.num_experts);
  }
  in_range("score_function", static_cast<int32_t>(config.score_function), 0,
           static_cast<int32_t>(ScoreFunction::kIdentity));
  in_range("group_score", static_cast<int32_t>(config.group_score), 0,
           static_cast<int32_t>(GroupScore::kTopKSum));
  if (!std::isfinite(config.routed_scaling_factor) || config.routed_scaling_factor <= 0.0f) {
    refuse("routed_scaling_factor is ", config.routed_scaling_factor,
           ", must be finite and above 0");
  }
  in_range("num_groups", config.num_groups, 1, config.num_experts);
  if (config.num_experts % config.num_groups != 0) {
    refuse("num_groups is ", config.num_groups, ", must divide num_experts, ", config.num_experts);
  }
  in_range("top_groups", config.top_groups, 1, config.num_groups);
  const int32_t reachable = config.num_experts / config.num_groups * config.top_groups;
  if (config.top_k > reachable) {
    refuse("top_k is ", config.top_k, ", must not exceed the ", reachable, " experts of ",
           config.top_groups, " groups");
  }
  if (config.group_score == GroupScore::kTopKSum && config.top_k < config.top_groups) {
    refuse("top_k is ", config.top_k, ", must be at least top_groups, ", config.top_groups,
           ", for group_score topk_sum");
  }
  in_range("num_shared_experts", config.num_shared_experts, 0, kMaxSharedExperts);
  if (!std::isfinite(config.shared_expert_weight)) {
    refuse("shared_expert_weight is ", config.shared_expert_weight, ", must be finite");
  }
}

void cpu::check_logits(const ConstTensorView& logits, int64_t num_tokens, int32_t num_experts) {
  if (logits.dtype > DataType::kBFloat16) {
    refuse("logits have element type ", static_cast<int>(logits.dtype),
           ", must be F32, F16 or BF16");
  }
  check_matrix("logits", logits, num_tokens, num_experts);
}

void cpu::check_routed(const RouterConfig& config, const RoutingResult& result,
                       int64_t num_tokens) {
  check_matrix("expert_ids", result.expert_ids, num_tokens, config.num_slots());
  if (result.gate_weights.dtype != DataType::kFloat32 &&
      result.gate_weights.dtype != DataType::kBFloat16) {
    refuse("gate_weights are ", name_of(result.gate_weights.dtype), ", must be F32 or BF16");
  }
  check_matrix("gate_weights", result.gate_weights, num_tokens, config.num_slots());
  check_optional_vector("tokens_per_expert", result.tokens_per_expert, config.num_expert_ids());
}

void cpu::check_residency(const ResidencyPreference& residency, const RouterConfig& config) {
  check_optional_vector("resident_experts", residency.resident_experts, config.num_experts);
  const auto at_least_zero = [](const char* name, float value) {
    if (!(value >= 0.0f)) refuse("residency.", name, " is ", value, ", must be 0 or more");
  };
  at_least_zero("bonus", residency.bonus);
  at_least_zero("max_swap_loss", residency.max_swap_loss);
  at_least_zero("max_sacrificed_share", residency.max_sacrificed_share);
  if (residency.bonus_scale != BonusScale::kAbsolute &&
      residency.bonus_scale != BonusScale::kSpread) {
    refuse("residency.bonus_scale is ", static_cast<int>(residency.bonus_scale),
           ", must be in [0, 1]");
  }
  check_range("residency.num_protected", residency.num_protected, 0, config.top_k);
}

void cpu::check_route_call(const RouterConfig& config, const RoutingInputs& inputs,
                           const RoutingResult& result) {
  const int64_t num_tokens = inputs.logits.rows;
  check_logits(inputs.logits, num_tokens, config.num_experts);
  check_optional_vector("selection_bias", inputs.selection_bias, config.num_experts);
  check_optional_vector("expert_mask", inputs.expert_mask, config.num_experts);
  check_optional_vector("token_mask", inputs.token_mask, num_tokens);
  check_routed(config, result, num_tokens);
  check_optional_vector("sacrificed_mass", result.sacrificed_mass, num_tokens);
  check_residency(inputs.residency, config);
  check_optional_vector("loss_sums", result.loss_sums, router_loss_sums_size(config.num_experts));
}

Router::Router(const RouterConfig& config, Backend backend, CpuThreads threads) {
  validate(config);
  implementation_ = cpu::make_router(config, backend, threads);
}

Router::~Router() = default;
Router::Router(Router&&) noexcept = default;
Router& Router::operator=(Router&&) noexcept = default;

const RouterConfig& Router::config() const { return implementation_->config; }

Backend Router::backend() const { return implementation_->backend; }

int64_t Router::workspace_bytes(int64_t max_tokens) const {
  if (max_tokens < 0) refuse("max_tokens is ", max_tokens, ", must be 0 or more");
  return implementation_->workspace_bytes(max_tokens);
}

void Router::route(const RoutingInputs& inputs, const RoutingResult& result,
                   std::span<std::byte> workspace, StreamView stream) const {
  if (implementation_->route_usual(inputs, result)) return;
  cpu::check_route_call(config(), inputs, result);
  cpu::check_workspace(workspace, implementation_->workspace_bytes(inputs.logits.rows));
  implementation_->route(inputs, result, workspace, stream);
}

}  // namespace switchyard

// The usual call for a single token, told from all others at once: whatever is not plainly in order
// goes the way of batches, where every argument is checked by itself.
#pragma once

#include <bit>
#include <cstdint>

#include "cpu/routing_task.h"

namespace switchyard::cpu {

template <typename View>
bool is_token_row(const View& view, int64_t cols) {
  return (view.rows == 1) & (view.cols == cols) & (view.row_stride >= cols) &
         (view.data != nullptr);
}

/// Whether a call routes one token in the form of a TokenTask and nothing about it is refused; its
/// preference is not looked at.
inline bool is_token_call(const RouterConfig& config, const RoutingInputs& inputs,
                          const RoutingResult& result) {
  const int64_t top_k = config.top_k;
  const int64_t not_wanted = inputs.selection_bias.size | inputs.token_mask.size |
                             inputs.expert_mask.size | result.tokens_per_expert.size |
                             result.loss_sums.size | config.num_shared_experts;
  const VectorView<float>& sacrificed = result.sacrificed_mass;
  return is_token_row(inputs.logits, config.num_experts) & is_token_row(result.expert_ids, top_k) &
         is_token_row(result.gate_weights, top_k) & (not_wanted == 0) &
         (inputs.logits.dtype == DataType::kFloat32) &
         (result.gate_weights.dtype == DataType::kFloat32) &
         (sacrificed.size == static_cast<int64_t>(sacrificed.data != nullptr));
}

/// Whether a preference is not refused. Without NaN, what is 0 or more has no sign bit: -0 goes the
/// other way.
inline bool is_usual_preference(const RouterConfig& config, const ResidencyPreference& residency) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  const auto bits = [](float value) { return std::bit_cast<uint32_t>(value); };
  const int64_t size = residency.resident_experts.size;
  const bool has_mask = (size == config.num_experts) & (residency.resident_experts.data != nullptr);
  return ((size == 0) | has_mask) & (bits(residency.bonus) <= kInfinity) &
         (bits(residency.max_swap_loss) <= kInfinity) &
         (bits(residency.max_sacrificed_share) <= kInfinity) &
         (residency.bonus_scale <= BonusScale::kSpread) &
         (static_cast<uint32_t>(residency.num_protected) <= static_cast<uint32_t>(config.top_k));
}

/// Routes a token whose call is a usual one.
inline TokenOutcome route_token(TokenRouteKernel kernel, const RouterConfig& config,
                                const RoutingInputs& inputs, const RoutingResult& result,
                                const ResidencyPreference* active_residency) {
  const TokenTask task{&config,
                       static_cast<const float*>(inputs.logits.data),
                       result.expert_ids.data,
                       static_cast<float*>(result.gate_weights.data),
                       active_residency,
                       result.sacrificed_mass.data};
  const TokenOutcome outcome = kernel(task);
  if (outcome == TokenOutcome::kNotRouted) return outcome;
  if (result.num_degenerate_rows != nullptr) *result.num_degenerate_rows = 0;
  if (active_residency == nullptr && result.sacrificed_mass.data != nullptr) {
    *result.sacrificed_mass.data = 0.0f;
  }
  return outcome;
}

}  // namespace switchyard::cpu

// The usual call for a single token, told from all others at once: whatever is not plainly in order
// goes the way of batches, where every argument is checked by itself.
#pragma once

#include <bit>
#include <cstdint>

#include "cpu/routing_task.h"

namespace switchyard::cpu {

/// Routes a token by `route` after its logits, of another type, have been widened.
using NarrowTokenRouteKernel = TokenOutcome (*)(TokenRouteKernel route, const TokenTask& task,
                                                const ConstTensorView& logits);

/// The kernel for the best instruction set of this machine that Highway may use now.
NarrowTokenRouteKernel best_narrow_token_kernel();

/// How a router's tokens are routed.
struct TokenKernels {
  TokenRouteKernel route = nullptr;  ///< null: by the way of batches
  NarrowTokenRouteKernel route_narrow = nullptr;
};

/// 0 for a view of one row of `cols` elements. All at once: one branch is better than six.
template <typename View>
int64_t faults_of_row(const View& view, int64_t cols) {
  return (view.rows ^ 1) | (view.cols ^ cols) | int64_t{view.row_stride < cols} |
         int64_t{view.data == nullptr};
}

/// Whether a call routes one token in the form of a TokenTask, but for the logits' type, and
/// nothing about it is refused; its preference is not looked at.
inline bool is_token_call(const RouterConfig& config, const RoutingInputs& inputs,
                          const RoutingResult& result) {
  const int64_t not_wanted = inputs.selection_bias.size | inputs.token_mask.size |
                             inputs.expert_mask.size | result.tokens_per_expert.size |
                             result.loss_sums.size | config.num_shared_experts;
  const VectorView<float>& sacrificed = result.sacrificed_mass;
  const int64_t faults = not_wanted | faults_of_row(inputs.logits, config.num_experts) |
                         faults_of_row(result.expert_ids, config.top_k) |
                         faults_of_row(result.gate_weights, config.top_k) |
                         int64_t{inputs.logits.dtype > DataType::kBFloat16} |
                         int64_t{result.gate_weights.dtype != DataType::kFloat32} |
                         (sacrificed.size ^ int64_t{sacrificed.data != nullptr});
  return faults == 0;
}

/// Whether a preference is not refused. Without NaN, what is 0 or more has no sign bit: -0 goes the
/// other way.
inline bool is_usual_preference(const RouterConfig& config, const ResidencyPreference& residency) {
  constexpr uint32_t kInfinity = 0x7f800000u;
  const auto is_no_bound = [](float value) {
    return int64_t{std::bit_cast<uint32_t>(value) > kInfinity};
  };
  const VectorView<const uint8_t>& residents = residency.resident_experts;
  if (!residents.empty() && (residents.size != config.num_experts || residents.data == nullptr)) {
    return false;
  }
  const int64_t faults = is_no_bound(residency.bonus) | is_no_bound(residency.max_swap_loss) |
                         is_no_bound(residency.max_sacrificed_share) |
                         int64_t{residency.bonus_scale > BonusScale::kSpread} |
                         int64_t{residency.num_protected < 0} |
                         int64_t{residency.num_protected > config.top_k};
  return faults == 0;
}

/// Routes a token whose call is a usual one.
inline TokenOutcome route_token(const TokenKernels& kernels, const RouterConfig& config,
                                const RoutingInputs& inputs, const RoutingResult& result,
                                const ResidencyPreference* active_residency) {
  const bool is_wide = inputs.logits.dtype == DataType::kFloat32;
  const TokenTask task{&config,
                       is_wide ? static_cast<const float*>(inputs.logits.data) : nullptr,
                       result.expert_ids.data,
                       static_cast<float*>(result.gate_weights.data),
                       active_residency,
                       result.sacrificed_mass.data};
  const TokenOutcome outcome =
      is_wide ? kernels.route(task) : kernels.route_narrow(kernels.route, task, inputs.logits);
  if (outcome == TokenOutcome::kNotRouted) return outcome;
  if (result.num_degenerate_rows != nullptr) *result.num_degenerate_rows = 0;
  if (active_residency == nullptr && result.sacrificed_mass.data != nullptr) {
    *result.sacrificed_mass.data = 0.0f;
  }
  return outcome;
}

}  // namespace switchyard::cpu

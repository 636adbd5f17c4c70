// The usual call for a single token, told from all others at once: whatever is not plainly in order
// goes the way of batches.
#pragma once

#include <cstdint>

#include "cpu/routing_task.h"
#include "cpu/usual_call.h"

namespace switchyard::cpu {

/// Routes a token by `route` after its logits, of another type, have been widened.
using NarrowTokenRouteKernel = TokenOutcome (*)(TokenRouteKernel route, const TokenTask& task,
                                                const ConstTensorView& logits);

/// How a router's tokens are routed.
struct TokenKernels {
  TokenRouteKernel route = nullptr;           ///< of float32 logits; null: by the way of batches
  TokenRouteKernel route_bfloat16 = nullptr;  ///< null: by route_narrow
  NarrowTokenRouteKernel route_narrow = nullptr;
};

/// The kernels for a config on the best instruction set of this machine that Highway may use now;
/// null ones where tokens of such a config have no shorter way than batches, or none that knows of
/// residents and `prefers_residents`.
TokenKernels best_token_kernels(const RouterConfig& config, bool prefers_residents);

/// Whether a call routes one token in the form of a TokenTask, but for the logits' type, and
/// nothing about it is refused; its preference is not looked at.
inline bool is_token_call(const RouterConfig& config, const RoutingInputs& inputs,
                          const RoutingResult& result) {
  const int64_t not_wanted = inputs.selection_bias.size | inputs.token_mask.size |
                             inputs.expert_mask.size | result.tokens_per_expert.size |
                             result.loss_sums.size | config.num_shared_experts;
  const VectorView<float>& sacrificed = result.sacrificed_mass;
  return not_wanted == 0 && has_rows(inputs.logits, 1, config.num_experts) &&
         has_rows(result.expert_ids, 1, config.top_k) &&
         has_rows(result.gate_weights, 1, config.top_k) &&
         inputs.logits.dtype <= DataType::kBFloat16 &&
         result.gate_weights.dtype == DataType::kFloat32 &&
         sacrificed.size == int64_t{sacrificed.data != nullptr};
}

/// Routes a token whose call is a usual one.
inline TokenOutcome route_token(const TokenKernels& kernels, const RouterConfig& config,
                                const RoutingInputs& inputs, const RoutingResult& result,
                                const ResidencyPreference* active_residency) {
  const TokenTask task{&config,
                       inputs.logits.data,
                       result.expert_ids.data,
                       static_cast<float*>(result.gate_weights.data),
                       active_residency,
                       result.sacrificed_mass.data};
  const DataType dtype = inputs.logits.dtype;
  TokenRouteKernel route = nullptr;
  if (dtype == DataType::kFloat32) route = kernels.route;
  if (dtype == DataType::kBFloat16) route = kernels.route_bfloat16;
  const TokenOutcome outcome =
      route != nullptr ? route(task) : kernels.route_narrow(kernels.route, task, inputs.logits);
  if (outcome == TokenOutcome::kNotRouted) return outcome;
  if (result.num_degenerate_rows != nullptr) *result.num_degenerate_rows = 0;
  if (active_residency == nullptr && result.sacrificed_mass.data != nullptr) {
    *result.sacrificed_mass.data = 0.0f;
  }
  return outcome;
}

}  // namespace switchyard::cpu

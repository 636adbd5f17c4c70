// Hash routing on the CPU: the vectorised form.
#pragma once

#include "cpu/threads.h"
#include "switchyard/hash_routing.h"

namespace switchyard::cpu {

/// One call, checked: every id that is used is in range.
struct HashRoutingCall {
  const RouterConfig& config;
  VectorView<const int32_t> token_ids;
  MatrixView<const int32_t> table;
  ConstTensorView logits;  ///< data == nullptr: none
  const RoutingResult& result;

  [[nodiscard]] int64_t num_tokens() const { return token_ids.size; }
  /// A weight where there are no logits.
  [[nodiscard]] float plain_weight() const {
    const float share = config.renormalize ? 1.0f / static_cast<float>(config.top_k) : 1.0f;
    return share * config.routed_scaling_factor;
  }
};

void look_up_experts(const HashRoutingCall& call, const ThreadTeam& team);

}  // namespace switchyard::cpu

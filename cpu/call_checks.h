// What the front doors check of a call before a backend sees it; for calls that do several things.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cpu/refuse.h"
#include "switchyard/permutation.h"
#include "switchyard/router.h"

namespace switchyard::cpu {

/// @throws InvalidArgument  for another shape or an unknown element type.
void check_logits(const ConstTensorView& logits, int64_t num_tokens, int32_t num_experts);

/// Ids, weights and counts of a result.
/// @throws InvalidArgument  when a shape disagrees with the config, or weights are of another type.
void check_routed(const RouterConfig& config, const RoutingResult& result, int64_t num_tokens);

/// @throws InvalidArgument  for a mask of another size or a number that bounds nothing.
void check_residency(const ResidencyPreference& residency, const RouterConfig& config);

/// @throws InvalidArgument  as Router::route() does for shapes.
void check_route_call(const RouterConfig& config, const RoutingInputs& inputs,
                      const RoutingResult& result);

/// @throws InvalidArgument  as Permuter::sort() does for shapes.
void check_sort_call(const PermutationConfig& config, MatrixView<const int32_t> expert_ids,
                     const ConstTensorView& gate_weights, const Permutation& out);

inline void check_workspace(std::span<std::byte> workspace, int64_t needed) {
  if (static_cast<int64_t>(workspace.size()) < needed) {
    refuse("workspace holds ", workspace.size(), " bytes, must hold ", needed);
  }
}

}  // namespace switchyard::cpu

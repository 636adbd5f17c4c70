// What one call to the CPU router asks of its kernels, in plain fields.
#pragma once

#include <cstdint>

#include "switchyard/router_backend.h"

namespace switchyard::cpu {

/// One batch to route. Views are those of RoutingInputs and RoutingResult, already checked.
struct RouteTask {
  RouterConfig config;
  ConstTensorView logits;
  const float* bias = nullptr;
  const uint8_t* token_mask = nullptr;
  const uint8_t* expert_mask = nullptr;
  MatrixView<int32_t> expert_ids;
  TensorView gate_weights;
  const ResidencyPreference* residency = nullptr;  ///< null: none that changes anything
  float* sacrificed_mass = nullptr;                ///< written only where `residency` is not null
};

/// Where a range of tokens adds its counts; null members are not wanted.
struct RouteTally {
  int64_t* tokens_per_expert = nullptr;
  int64_t* loss_sums = nullptr;
  int64_t num_degenerate_rows = 0;
};

/// Routes the tokens [begin, end) of a task.
using RouteKernel = void (*)(const RouteTask& task, int64_t begin, int64_t end, RouteTally& tally);

/// The kernel for the best instruction set of this machine that Highway may use now.
RouteKernel best_route_kernel();

}  // namespace switchyard::cpu

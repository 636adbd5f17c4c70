// What one call to the CPU router asks of its kernels, in plain fields.
#pragma once

#include <cstdint>

#include "switchyard/router_backend.h"

namespace switchyard::cpu {

/// One token to route, in the form that most have: a row of float32 logits without any mask, and
/// rows for top_k ids and float32 weights. Checked.
struct TokenTask {
  const RouterConfig* config = nullptr;
  const float* logits = nullptr;
  int32_t* expert_ids = nullptr;
  float* gate_weights = nullptr;
  const ResidencyPreference* residency = nullptr;  ///< null: none that changes anything
  float* sacrificed_mass = nullptr;                ///< written only where `residency` is not null
};

enum class TokenOutcome : uint8_t {
  kNotRouted,  ///< its values need the general way; nothing is written
  kRouted,
  kRoutedToResidents,  ///< and `residency` tells that all its experts are resident
};

/// Routes a token of a certain config.
using TokenRouteKernel = TokenOutcome (*)(const TokenTask& task);

/// The kernel for a config on the best instruction set of this machine that Highway may use now;
/// null where tokens of such a config have no shorter way than batches, or none that knows of
/// residents and `prefers_residents`.
TokenRouteKernel best_token_kernel(const RouterConfig& config, bool prefers_residents);

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
  TokenRouteKernel token_kernel = nullptr;         ///< without a preference; null: none
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

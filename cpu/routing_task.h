// What one call to the CPU router asks of its kernels, in plain fields.
#pragma once

#include <cstdint>

#include "switchyard/router_backend.h"

namespace switchyard::cpu {

/// One token to route, in the form that most have: a row of logits without any mask, and rows for
/// top_k ids and float32 weights. Checked.
struct TokenTask {
  const RouterConfig* config = nullptr;
  const void* logits = nullptr;  ///< of the kernel's type
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

/// Routes a token of a certain config and type of logits.
using TokenRouteKernel = TokenOutcome (*)(const TokenTask& task);

struct BlockPlan;

/// One batch to route. Views are the caller's own, already checked: to copy what was just written
/// in pieces would take longer than many a block of rows.
struct RouteTask {
  const RouterConfig& config;
  const ConstTensorView& logits;
  const float* bias = nullptr;
  const uint8_t* token_mask = nullptr;
  const uint8_t* expert_mask = nullptr;
  const MatrixView<int32_t>& expert_ids;
  const TensorView& gate_weights;
  const BlockPlan* blocks = nullptr;
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

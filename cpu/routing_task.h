// What one call to the CPU router asks of its kernels, in plain fields.
#pragma once

#include <cstdint>

#include "switchyard/router.h"

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

/// True when the choice is made on the logits themselves: softmax is monotone, so without a bias or
/// sums of probabilities no exponential is needed.
inline bool selects_on_logits(const RouteTask& task) {
  const RouterConfig& config = task.config;
  const bool sums_groups =
      config.num_groups != config.top_groups && config.group_score != GroupScore::kMax;
  return config.score_function == ScoreFunction::kSoftmax && task.bias == nullptr && !sums_groups;
}

/// Members that make a group's score.
inline int32_t group_terms(const RouterConfig& config) {
  switch (config.group_score) {
    case GroupScore::kMax:
      return 1;
    case GroupScore::kTop2Sum:
      return 2;
    case GroupScore::kTopKSum:
      return config.top_k / config.top_groups;
  }
  return 1;
}

}  // namespace switchyard::cpu

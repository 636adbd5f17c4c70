// The router's kernels.
#pragma once

#include "cuda/block_router.cuh"

namespace switchyard::cuda {

/// Zeroes what the blocks of route_kernel() add to.
__global__ void clear_route_sums_kernel(RouteTask task) {
  let_next_grid_start();
  const int first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int step = static_cast<int>(gridDim.x * blockDim.x);
  if (task.tokens_per_expert != nullptr) {
    for (int i = first; i < task.config.num_expert_ids(); i += step) task.tokens_per_expert[i] = 0;
  }
  if (task.loss_sums != nullptr) {
    const auto size = static_cast<int>(router_loss_sums_size(task.config.num_experts));
    for (int i = first; i < size; i += step) task.loss_sums[i] = 0;
  }
  if (task.num_degenerate_rows != nullptr && first == 0) *task.num_degenerate_rows = 0;
}

/// The sums of a grid of several blocks are zero before: clear_route_sums().
template <int kPerLane>
__global__ void __launch_bounds__(kMaxRouteWarps* kWarpSize, 1) route_kernel(RouteTask task) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kMaxRouteWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const TokenSteps tokens = tokens_over_grid(task);
  RowAhead<kPerLane> row;
  if (!task.beside_clearing) row.load(task, tokens.first);
  begin_beside_clearing(task);
  const BlockMemory block(task, memory);
  route_tokens(task, tokens, block, selection, row, num_degenerate_rows);
  finish_block(task, block.tally, num_degenerate_rows);
}

}  // namespace switchyard::cuda

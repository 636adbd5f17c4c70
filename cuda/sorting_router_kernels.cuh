// Routing and sorting of a few tokens by one block.
#pragma once

#include "cuda/assignment_sort.cuh"
#include "cuda/block_router.cuh"

namespace switchyard::cuda {

/// Routes like route_kernel() in a grid of one block, then sorts. The block's dynamic shared memory
/// serves one after the other.
template <int kPerLane>
__global__ void __launch_bounds__(kMaxRouteWarps* kWarpSize, 1)
    route_and_sort_kernel(RouteTask task, SortArgs args) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kMaxRouteWarps]);
  SWITCHYARD_SHARED(int64_t, warp_sums, [kMaxWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const BlockMemory block(task, memory);
  route_tokens<kPerLane>(task, block, selection, num_degenerate_rows);
  finish_block(task, block.tally, num_degenerate_rows);
  __syncthreads();
  sort_in_block(args, reinterpret_cast<uint32_t*>(memory), warp_sums);
}

}  // namespace switchyard::cuda

// Routing and sorting of small batches in one launch.
#pragma once

#include "cuda/sorting_router.cuh"

namespace switchyard::cuda {

/// Warps of a block, at most: as many as the registers of a row leave.
constexpr int most_sorting_warps(int per_lane) { return per_lane <= 16 ? 16 : 8; }

/// Routes like route_kernel() and sorts, for a grid of one cluster whose blocks take consecutive
/// tokens. A block's dynamic shared memory holds its sums, and behind them what routing needs and
/// then the sort.
template <int kPerLane>
__global__ void __launch_bounds__(most_sorting_warps(kPerLane) * kWarpSize, 1)
    route_and_sort_kernel(RouteTask task, SortArgs args) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [most_sorting_warps(kPerLane)]);
  SWITCHYARD_SHARED(int64_t, warp_sums, [kMaxWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const BlockMemory block(task, memory);
  const ClusterSort sort(args, memory + (route_tally_bytes(task) + 7) / 8 * 8);
  const TokenRange tokens = tokens_of_block(args);
  route_tokens<kPerLane>(task, warp_steps(tokens), block, selection, num_degenerate_rows);
  let_next_grid_start();
  count_block(args, tokens, sort);
  arrive_at_cluster();
  wait_for_cluster();
  store_cluster_sums(task, block.tally, num_degenerate_rows);
  lay_out_cluster(args, sort, warp_sums);
  // From here on nobody reads another block's memory.
  arrive_at_cluster();
  place_block(args, tokens, sort);
  if (args.may_drop()) __syncthreads();
  wait_for_cluster();
  if (args.may_drop()) add_fully_dropped(args, tokens);
}

}  // namespace switchyard::cuda

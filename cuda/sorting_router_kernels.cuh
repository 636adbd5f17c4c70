// Routing and sorting of small batches in one launch, of a grid of one cluster whose blocks take
// consecutive tokens. A block's dynamic shared memory holds its sums, and behind them what routing
// needs and then the sort.
#pragma once

#include "cuda/row_shortcut_kernels.cuh"
#include "cuda/sorting_router.cuh"

namespace switchyard::cuda {

/// Warps of a block, at most: as many as the registers of a row leave.
constexpr int most_sorting_warps(int per_lane) { return per_lane <= 16 ? 16 : 8; }

/// The same where rows go a shortcut.
inline constexpr int kShortcutSortingWarps = 16;

/// Sorts what the cluster's blocks have routed. For whole blocks whose threads have written the ids
/// of `tokens`; `memory` is all of a block's.
__device__ __forceinline__ void sort_in_cluster(const RouteTask& task, const SortArgs& args,
                                                const TokenRange& tokens, const BlockTally& tally,
                                                unsigned char* memory, int64_t* warp_sums,
                                                int& num_degenerate_rows) {
  const ClusterSort sort(args, memory + (route_tally_bytes(task) + 7) / 8 * 8);
  let_next_grid_start();
  count_block(args, tokens, sort);
  arrive_at_cluster();
  wait_for_cluster();
  store_cluster_sums(task, tally, num_degenerate_rows);
  lay_out_cluster(args, sort, warp_sums);
  // From here on nobody reads another block's memory.
  arrive_at_cluster();
  place_block(args, tokens, sort);
  if (args.may_drop()) __syncthreads();
  wait_for_cluster();
  if (args.may_drop()) add_fully_dropped(args, tokens);
}

/// Routes like route_kernel() and sorts.
template <int kPerLane>
__global__ void __launch_bounds__(most_sorting_warps(kPerLane) * kWarpSize, 1)
    route_and_sort_kernel(RouteTask task, SortArgs args) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [most_sorting_warps(kPerLane)]);
  SWITCHYARD_SHARED(int64_t, warp_sums, [kMaxWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const BlockMemory block(task, memory);
  const TokenRange tokens = tokens_of_block(args);
  route_tokens<kPerLane>(task, warp_steps(tokens), block, selection, num_degenerate_rows);
  sort_in_cluster(task, args, tokens, block.tally, memory, warp_sums, num_degenerate_rows);
}

/// Routes like route_lanes_kernel() and sorts.
template <int kLanes, int kGroups, typename T>
__global__ void __launch_bounds__(kShortcutSortingWarps* kWarpSize, 1)
    lanes_and_sort_kernel(RouteTask task, SortArgs args) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kShortcutSortingWarps]);
  SWITCHYARD_SHARED(int64_t, warp_sums, [kMaxWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const RouteTask plain = plain_task<T>(task);
  const BlockMemory block(plain, memory);
  const TokenRange tokens = tokens_of_block(args);
  route_by_lanes<kLanes, kGroups, T>(plain, warp_steps(tokens, kWarpSize / kLanes), block.tally,
                                     selection, num_degenerate_rows);
  sort_in_cluster(plain, args, tokens, block.tally, memory, warp_sums, num_degenerate_rows);
}

/// Routes like route_threads_kernel() and sorts.
template <int kMaxRowExperts, typename T>
__global__ void __launch_bounds__(kShortcutSortingWarps* kWarpSize, 1)
    threads_and_sort_kernel(RouteTask task, SortArgs args) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kShortcutSortingWarps]);
  SWITCHYARD_SHARED(int64_t, warp_sums, [kMaxWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const RouteTask plain = plain_task<T>(task);
  const BlockMemory block(plain, memory);
  const TokenRange tokens = tokens_of_block(args);
  route_by_threads<kMaxRowExperts, T>(plain, warp_steps(tokens, kWarpSize), block.tally, selection,
                                      num_degenerate_rows);
  sort_in_cluster(plain, args, tokens, block.tally, memory, warp_sums, num_degenerate_rows);
}

}  // namespace switchyard::cuda

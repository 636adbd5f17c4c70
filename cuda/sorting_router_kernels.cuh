// Routing and sorting of small batches in one launch, of a grid of one cluster whose blocks take
// consecutive tokens. A block's dynamic shared memory holds its sums, and behind them what routing
// needs and then the sort; or, if routing notes its choices, first the one and then the other.
#pragma once

#include "cuda/assignment_rows.cuh"
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

/// The same of few assignments, which routing has noted.
__device__ __forceinline__ void sort_few_in_cluster(const RouteTask& task, const SortArgs& args,
                                                    const TokenRange& tokens,
                                                    const BlockTally& tally,
                                                    const FewAssignments& few,
                                                    int& num_degenerate_rows) {
  let_next_grid_start();
  arrive_at_cluster_shared();
  wait_for_cluster();
  for (int segment = warp_index_in_block(); segment < few.num_segments;
       segment += warps_per_block()) {
    lay_out_segment(args, few, segment);
  }
  if (task.has_sums()) store_cluster_sums(task, tally, num_degenerate_rows);
  // From here on nobody reads another block's memory.
  if (!args.may_drop()) arrive_at_cluster_relaxed();
  __syncthreads();
  place_few(args, tokens, few);
  fill_unused(args, LayoutOfFew{args, few});
  if (args.may_drop()) arrive_at_cluster();
  wait_for_cluster();
  if (args.may_drop()) add_fully_dropped(args, tokens);
}

/// Where few assignments are kept, behind what routing needs.
__host__ __device__ inline int64_t few_assignments_begin(const RouteTask& task, int num_warps) {
  return (route_shared_bytes(task, num_warps) + 15) / 16 * 16;
}

/// Routes like route_kernel() and sorts.
template <int kPerLane>
__global__ void __launch_bounds__(most_sorting_warps(kPerLane) * kWarpSize, 1)
    route_and_sort_kernel(RouteTask task, SortArgs args) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [most_sorting_warps(kPerLane)]);
  SWITCHYARD_SHARED(int64_t, warp_sums, [kMaxWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const TokenRange tokens = tokens_of_block(args);
  RowAhead<kPerLane> row;
  row.load(task, warp_steps(tokens).first);
  BlockMemory block(task, memory);
  const FewAssignments few(args, tokens, memory + few_assignments_begin(task, warps_per_block()));
  if (args.notes_choices) block.tally.notes = few.notes;
  route_tokens(task, warp_steps(tokens), block, selection, row, num_degenerate_rows);
  if (args.notes_choices) {
    sort_few_in_cluster(task, args, tokens, block.tally, few, num_degenerate_rows);
  } else {
    sort_in_cluster(task, args, tokens, block.tally, memory, warp_sums, num_degenerate_rows);
  }
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

// The kernels that sort assignments by (expert, token, slot): one for small batches, and a chain of
// three for the rest, in which each kernel is a dependent launch behind the one before.
//
// Not by CUB: its radix sort takes seven kernels and fills of memory up to 256 experts, nine
// beyond, and rows in both directions, offsets and capacities are still to come. What is scanned
// here are columns of counters, and one row of at most 4096 experts, which a block has at hand.
// bench/results/h200-predicted.md counts bytes and launches.
#pragma once

#include "cuda/weight_cutoff_kernels.cuh"

namespace switchyard::cuda {

inline constexpr int kSortThreads = 32 * kMaxWarps;

__global__ void __launch_bounds__(kSortThreads) sort_small_kernel(SortArgs args) {
  SWITCHYARD_DYNAMIC_SHARED(uint32_t, counts);
  SWITCHYARD_SHARED(int64_t, warp_sums, [kMaxWarps]);
  wait_for_previous_grid();
  sort_in_block(args, counts, warp_sums);
}

/// Counts each block's assignments by expert into positions[block].
__global__ void __launch_bounds__(kSortThreads) count_kernel(SortArgs args) {
  SWITCHYARD_DYNAMIC_SHARED(uint32_t, counts);  // [num_experts]
  wait_for_previous_grid();
  let_next_grid_start();  // not before the ids are there, which later kernels read at once
  const TokenRange tokens = tokens_of_block(args);
  clear_counters(counts, args.num_experts);
  __syncthreads();
  const uint32_t none = static_cast<uint32_t>(args.num_experts);
  for (uint32_t begin = 0; begin < tokens.num_assignments(); begin += blockDim.x) {
    const uint32_t index = begin + threadIdx.x;
    const uint32_t expert =
        index < tokens.num_assignments() ? expert_at(args, tokens, index) : none;
    count_key(counts, expert, expert != none);
  }
  __syncthreads();
  int64_t* const positions = args.positions + static_cast<int64_t>(blockIdx.x) * args.num_experts;
  for (int expert = static_cast<int>(threadIdx.x); expert < args.num_experts;
       expert += static_cast<int>(blockDim.x)) {
    positions[expert] = counts[expert];
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) *args.finished_blocks = 0;
}

/// Turns counts into positions, a block for 32 experts, a warp for consecutive blocks of the
/// counting; the last block to finish lays out the rows of all experts.
__global__ void __launch_bounds__(kSortThreads) lay_out_kernel(SortArgs args) {
  SWITCHYARD_SHARED(int64_t, counts, [kMaxWarps][kWarpSize]);
  SWITCHYARD_SHARED(int64_t, warp_sums, [kMaxWarps]);
  SWITCHYARD_SHARED(bool, is_last);
  let_next_grid_start();
  wait_for_previous_grid();
  const int warp = warp_index_in_block();
  const int expert = static_cast<int>(blockIdx.x) * kWarpSize + lane_index();
  const bool is_expert = expert < args.num_experts;
  const int64_t blocks_of_warp = (args.num_blocks + kMaxWarps - 1) / kMaxWarps;
  const int64_t begin = min(warp * blocks_of_warp, args.num_blocks);
  const int64_t end = is_expert ? min(begin + blocks_of_warp, args.num_blocks) : begin;
  int64_t* const column = args.positions + expert;
  int64_t count = 0;
  for (int64_t block = begin; block < end; ++block) count += column[block * args.num_experts];
  counts[warp][lane_index()] = count;
  __syncthreads();
  int64_t position = 0;
  for (int before = 0; before < warp; ++before) position += counts[before][lane_index()];
  for (int64_t block = begin; block < end; ++block) {
    const int64_t next = position + column[block * args.num_experts];
    column[block * args.num_experts] = position;
    position = next;
  }
  if (is_expert && warp == kMaxWarps - 1) args.assigned[expert] = position;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(args.finished_blocks, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  lay_out(
      args, warp_sums, [&](int64_t of) { return args.assigned[of]; }, LayoutInOutputs{args});
}

/// Gives every assignment its row. Ranking reads nothing of the kernels before but the ids, which
/// are written when count_kernel() lets others start, so it runs beside them.
__global__ void __launch_bounds__(kSortThreads) place_kernel(SortArgs args) {
  SWITCHYARD_DYNAMIC_SHARED(uint32_t, counts);  // [warps][num_experts]
  let_next_grid_start();
  if (threadIdx.x == 0) forget_cached();
  const TokenRange tokens = tokens_of_block(args);
  clear_counters(counts, warps_per_block() * args.num_experts);
  __syncthreads();
  const PlacesInRows places{args, tokens};
  const LayoutInOutputs layout{args};
  rank_in_warps(args, tokens, counts, places);
  __syncthreads();
  for (int expert = static_cast<int>(threadIdx.x); expert < args.num_experts;
       expert += static_cast<int>(blockDim.x)) {
    (void)scan_warps(counts, args.num_experts, expert);
  }
  __syncthreads();
  wait_for_previous_grid();
  const int64_t* const positions =
      args.positions + static_cast<int64_t>(blockIdx.x) * args.num_experts;
  place_assignments(args, tokens, counts, places, layout,
                    [positions](uint32_t expert) { return positions[expert]; });
  if (args.drops_by_weight()) return;  // the choice is still to come
  fill_unused(args, layout);
  if (args.may_drop()) {
    __syncthreads();
    add_fully_dropped(args, tokens);
  }
}

}  // namespace switchyard::cuda

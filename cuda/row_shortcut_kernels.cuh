// Kernels for large batches of which nothing is asked but renormalised softmax.
#pragma once

#include "cuda/block_router.cuh"
#include "cuda/row_registers.cuh"
#include "cuda/row_shortcut.cuh"

namespace switchyard::cuda {

/// What the compiler may take for granted of a task for which find_shortcut() has found a kernel.
template <typename T>
__device__ RouteTask plain_task(const RouteTask& task) {
  RouteTask plain = task;
  plain.config.score_function = ScoreFunction::kSoftmax;
  plain.config.renormalize = true;
  plain.config.num_shared_experts = 0;
  plain.logits.dtype = std::is_same_v<T, float> ? DataType::kFloat32 : DataType::kBFloat16;
  plain.bias = nullptr;
  plain.token_mask = nullptr;
  plain.expert_mask = nullptr;
  plain.loss_sums = nullptr;
  plain.on_logits = true;
  plain.aligned_rows = true;  // by 4; a lane of route_row() takes no more
  plain.group_terms = 0;
  return plain;
}

/// Routes by the whole warp the tokens `first` + i for which bit i is set.
template <int kPerLane>
__device__ void route_left_rows(const RouteTask& task, const BlockTally& tally, int64_t first,
                                unsigned rows, WarpScratch& scratch, int& num_degenerate_rows) {
  for (; rows != 0; rows &= rows - 1) {
    const int row = __ffs(static_cast<int>(rows)) - 1;
    const bool degenerate = route_row<kPerLane>(task, first + row, tally, scratch);
    if (degenerate && lane_index() == 0) atomicAdd(&num_degenerate_rows, 1);
  }
}

/// Half a warp takes a row; `kPerLane` of its elements are a lane's.
template <int kPerLane, typename T>
__global__ void __launch_bounds__(kMaxRouteWarps* kWarpSize, 2)
    route_half_warps_kernel(RouteTask task) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kMaxRouteWarps]);
  SWITCHYARD_SHARED(HalfWarpScratch, halves, [2 * kMaxRouteWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const RouteTask plain = plain_task<T>(task);
  const BlockMemory block(plain, memory);
  begin_block(plain, block.tally, num_degenerate_rows);
  WarpScratch scratch{selection[warp_index_in_block()], {}};
  const int half = lane_index() / kHalfWarp;
  const int64_t num_tokens = plain.logits.rows;
  const int64_t step = 2 * static_cast<int64_t>(gridDim.x) * warps_per_block();
  for (int64_t first = 2 * global_warp_index(); first < num_tokens; first += step) {
    const bool is_left = route_row_by_half_warp<kPerLane, T>(
        plain, block.tally, first + half, first + half < num_tokens,
        halves[2 * warp_index_in_block() + half]);
    const unsigned left = __ballot_sync(kAllLanes, is_left ? 1 : 0);
    if (left == 0) continue;
    const unsigned rows = (left & 1u) | (left >> (kHalfWarp - 1) & 2u);
    route_left_rows<kPerLane / 2>(plain, block.tally, first, rows, scratch, num_degenerate_rows);
  }
  finish_block(plain, block.tally, num_degenerate_rows);
}

/// A thread takes a row; the whole warp takes those that it cannot.
template <int kMaxRowExperts, typename T>
__global__ void __launch_bounds__(kMaxRouteWarps* kWarpSize, 2)
    route_threads_kernel(RouteTask task) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kMaxRouteWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const RouteTask plain = plain_task<T>(task);
  const BlockMemory block(plain, memory);
  begin_block(plain, block.tally, num_degenerate_rows);
  WarpScratch scratch{selection[warp_index_in_block()], {}};
  const int64_t num_tokens = plain.logits.rows;
  const int64_t step = kWarpSize * static_cast<int64_t>(gridDim.x) * warps_per_block();
  for (int64_t first = kWarpSize * global_warp_index(); first < num_tokens; first += step) {
    const int64_t token = first + lane_index();
    const bool left =
        token < num_tokens && !route_row_by_thread<kMaxRowExperts, T>(plain, block.tally, token);
    const unsigned rows = __ballot_sync(kAllLanes, left ? 1 : 0);
    route_left_rows<1>(plain, block.tally, first, rows, scratch, num_degenerate_rows);
  }
  finish_block(plain, block.tally, num_degenerate_rows);
}

}  // namespace switchyard::cuda

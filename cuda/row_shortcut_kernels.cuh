// Kernels for large batches of which nothing is asked but renormalised softmax.
#pragma once

#include "cuda/block_router.cuh"
#include "cuda/row_registers.cuh"
#include "cuda/row_shortcut.cuh"
#include "cuda/row_shortcut.h"

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

/// Routes tokens, a warp two neighbours at a time. `selection` has an element for every warp,
/// `halves` two.
template <int kPerLane, typename T>
__device__ void route_by_half_warps(const RouteTask& task, const TokenSteps& tokens,
                                    const BlockTally& tally, SelectionScratch* selection,
                                    HalfWarpScratch* halves, int& num_degenerate_rows) {
  begin_block(task, tally, num_degenerate_rows);
  WarpScratch scratch{selection[warp_index_in_block()], {}};
  const int half = lane_index() / kHalfWarp;
  for (int64_t first = tokens.first; first < tokens.end; first += tokens.step) {
    const bool is_left =
        route_row_by_half_warp<kPerLane, T>(task, tally, first + half, first + half < tokens.end,
                                            halves[2 * warp_index_in_block() + half]);
    const unsigned left = __ballot_sync(kAllLanes, is_left ? 1 : 0);
    if (left == 0) continue;
    const unsigned rows = (left & 1u) | (left >> (kHalfWarp - 1) & 2u);
    route_left_rows<kPerLane / 2>(task, tally, first, rows, scratch, num_degenerate_rows);
  }
}

/// Routes tokens, a thread one of a warp's kWarpSize neighbours; the whole warp takes those that it
/// cannot.
template <int kMaxRowExperts, typename T>
__device__ void route_by_threads(const RouteTask& task, const TokenSteps& tokens,
                                 const BlockTally& tally, SelectionScratch* selection,
                                 int& num_degenerate_rows) {
  begin_block(task, tally, num_degenerate_rows);
  WarpScratch scratch{selection[warp_index_in_block()], {}};
  for (int64_t first = tokens.first; first < tokens.end; first += tokens.step) {
    const int64_t token = first + lane_index();
    const bool left =
        token < tokens.end && !route_row_by_thread<kMaxRowExperts, T>(task, tally, token);
    const unsigned rows = __ballot_sync(kAllLanes, left ? 1 : 0);
    route_left_rows<1>(task, tally, first, rows, scratch, num_degenerate_rows);
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
  begin_beside_clearing(task);
  const RouteTask plain = plain_task<T>(task);
  const BlockMemory block(plain, memory);
  route_by_half_warps<kPerLane, T>(plain, tokens_over_grid(plain, 2), block.tally, selection,
                                   halves, num_degenerate_rows);
  finish_block(plain, block.tally, num_degenerate_rows);
}

/// A thread takes a row.
template <int kMaxRowExperts, typename T>
__global__ void __launch_bounds__(kMaxRouteWarps* kWarpSize, 2)
    route_threads_kernel(RouteTask task) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kMaxRouteWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  begin_beside_clearing(task);
  const RouteTask plain = plain_task<T>(task);
  const BlockMemory block(plain, memory);
  route_by_threads<kMaxRowExperts, T>(plain, tokens_over_grid(plain, kWarpSize), block.tally,
                                      selection, num_degenerate_rows);
  finish_block(plain, block.tally, num_degenerate_rows);
}

template <typename T>
constexpr DataType kDataType = sizeof(T) == 4 ? DataType::kFloat32 : DataType::kBFloat16;

/// What route_by_threads() takes.
template <int kMaxRowExperts, typename T>
constexpr ShortcutRows rows_of_threads() {
  return {.dtype = kDataType<T>,
          .max_experts = kMaxRowExperts,
          .max_top_k = kMaxThreadTopK,
          .vector = 4,
          .at_once = kWarpSize};
}

/// What route_by_half_warps() takes.
template <int kPerLane, typename T>
constexpr ShortcutRows rows_of_half_warps() {
  return {.dtype = kDataType<T>,
          .max_experts = kPerLane * kHalfWarp,
          .max_top_k = kMaxHalfWarpTopK,
          .vector = HalfRowLayout<kPerLane, T>::kVector,
          .at_once = 2};
}

}  // namespace switchyard::cuda

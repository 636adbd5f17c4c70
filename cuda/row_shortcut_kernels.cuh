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
  plain.aligned_rows = true;  // by kShortcutVector; a lane of route_row() takes no more
  plain.group_terms = 0;
  // 32 bits are enough, also for a row's number: a shorter multiplication.
  plain.logits.row_stride = static_cast<uint32_t>(plain.logits.row_stride);
  plain.expert_ids.row_stride = static_cast<uint32_t>(plain.expert_ids.row_stride);
  plain.gate_weights.row_stride = static_cast<uint32_t>(plain.gate_weights.row_stride);
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

/// Routes tokens, kLanes lanes one of a warp's neighbours; the whole warp takes those that they
/// cannot. `selection` has an element for every warp.
template <int kLanes, int kGroups, typename T>
__device__ void route_by_lanes(const RouteTask& task, const TokenSteps& tokens,
                               const BlockTally& tally, SelectionScratch* selection,
                               int& num_degenerate_rows) {
  begin_block(task, tally, num_degenerate_rows);
  WarpScratch scratch{selection[warp_index_in_block()], {}};
  const auto end = static_cast<uint32_t>(tokens.end);
  const auto step = static_cast<uint32_t>(tokens.step);
  for (auto first = static_cast<uint32_t>(tokens.first); first < end; first += step) {
    const uint32_t token = first + static_cast<uint32_t>(lane_index() / kLanes);
    const unsigned left = route_row_by_lanes<kLanes, kGroups, T>(task, tally, token, token < end);
    if (left == 0) continue;
    unsigned rows = 0;
#pragma unroll
    for (int row = 0; row < kWarpSize / kLanes; ++row) {
      const unsigned lanes = left >> (row * kLanes) & ((1u << kLanes) - 1u);
      rows |= lanes != 0 ? 1u << row : 0u;
    }
    constexpr int kPerLane = kLanes * kGroups * kGroupSize / kWarpSize;
    route_left_rows<kPerLane>(task, tally, first, rows, scratch, num_degenerate_rows);
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

/// kLanes lanes take a row; each has kGroups groups of it.
template <int kLanes, int kGroups, typename T>
__global__ void __launch_bounds__(kMaxRouteWarps* kWarpSize, 2) route_lanes_kernel(RouteTask task) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kMaxRouteWarps]);
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  begin_beside_clearing(task);
  const RouteTask plain = plain_task<T>(task);
  const BlockMemory block(plain, memory);
  route_by_lanes<kLanes, kGroups, T>(plain, tokens_over_grid(plain, kWarpSize / kLanes),
                                     block.tally, selection, num_degenerate_rows);
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
          .at_once = kWarpSize};
}

/// What route_by_lanes() takes.
template <int kLanes, int kGroups, typename T>
constexpr ShortcutRows rows_of_lanes() {
  return {.dtype = kDataType<T>,
          .max_experts = kLanes * kGroups * kGroupSize,
          .max_top_k = kLanes,
          .at_once = kWarpSize / kLanes};
}

}  // namespace switchyard::cuda

// Routes a block's share of the tokens: its shared memory, its rows, its part of the sums.
#pragma once

#include "cuda/intrinsics.cuh"
#include "cuda/routing_task.cuh"
#include "cuda/row_router.cuh"

namespace switchyard::cuda {

inline constexpr int kMaxRouteWarps = 8;  ///< of a block

/// Bytes of a block's sums, which come first in its dynamic shared memory.
__host__ __device__ inline int64_t route_tally_bytes(const RouteTask& task) {
  int64_t bytes = 0;
  if (task.loss_sums != nullptr) bytes += router_loss_sums_size(task.config.num_experts) * 8;
  if (task.tokens_per_expert != nullptr) bytes += int64_t{task.config.num_expert_ids()} * 4;
  return bytes;
}

/// Bytes of a block's dynamic shared memory, as BlockMemory hands them out.
__host__ __device__ inline int64_t route_shared_bytes(const RouteTask& task, int num_warps) {
  int64_t bytes = route_tally_bytes(task);
  if (task.group_terms > 0) {
    bytes += num_warps * (int64_t{task.config.num_experts} + task.config.num_groups) * 4;
  }
  return bytes;
}

/// The parts of a block's shared memory that depend on the task.
struct BlockMemory {
  BlockTally tally{};
  GroupScratch groups{};  ///< of this warp

  __device__ BlockMemory(const RouteTask& task, unsigned char* memory) {
    const RouterConfig& config = task.config;
    if (task.loss_sums != nullptr) {
      tally.loss_sums = reinterpret_cast<unsigned long long*>(memory);
      memory += router_loss_sums_size(config.num_experts) * 8;
    }
    if (task.tokens_per_expert != nullptr) {
      tally.tokens_per_expert = reinterpret_cast<int*>(memory);
      memory += int64_t{config.num_expert_ids()} * 4;
    }
    if (task.group_terms > 0) {
      const int64_t keys = int64_t{config.num_experts} + config.num_groups;
      groups.row = reinterpret_cast<uint32_t*>(memory) + warp_index_in_block() * keys;
      groups.groups = groups.row + config.num_experts;
    }
  }
};

/// Adds a block's sum to the batch's; the only block of a grid writes it instead.
__device__ inline void add_block_sum(unsigned long long* total, unsigned long long sum) {
  if (gridDim.x == 1) {
    *total = sum;
  } else if (sum != 0) {
    atomicAdd(total, sum);
  }
}

/// The same of all that was asked for.
__device__ inline void add_block_sums(const RouteTask& task, const BlockTally& tally,
                                      int num_degenerate_rows) {
  const auto first = static_cast<int>(threadIdx.x);
  const auto step = static_cast<int>(blockDim.x);
  if (tally.tokens_per_expert != nullptr) {
    for (int i = first; i < task.config.num_expert_ids(); i += step) {
      add_block_sum(&task.tokens_per_expert[i],
                    static_cast<unsigned long long>(tally.tokens_per_expert[i]));
    }
  }
  if (tally.loss_sums != nullptr) {
    const auto size = static_cast<int>(router_loss_sums_size(task.config.num_experts));
    for (int i = first; i < size; i += step) add_block_sum(&task.loss_sums[i], tally.loss_sums[i]);
  }
  if (task.num_degenerate_rows != nullptr && first == 0) {
    add_block_sum(task.num_degenerate_rows, static_cast<unsigned long long>(num_degenerate_rows));
  }
}

/// Zeroes a block's sums. For whole blocks, which may add to them then.
__device__ inline void begin_block(const RouteTask& task, const BlockTally& tally,
                                   int& num_degenerate_rows) {
  const auto first = static_cast<int>(threadIdx.x);
  const auto step = static_cast<int>(blockDim.x);
  // Few turns each: the division with which loops are unrolled would take longer than all of them.
  if (tally.tokens_per_expert != nullptr) {
#pragma unroll 1
    for (int i = first; i < task.config.num_expert_ids(); i += step) tally.tokens_per_expert[i] = 0;
  }
  if (tally.loss_sums != nullptr) {
    const auto size = static_cast<int>(router_loss_sums_size(task.config.num_experts));
#pragma unroll 1
    for (int i = first; i < size; i += step) tally.loss_sums[i] = 0;
  }
  if (first == 0) num_degenerate_rows = 0;
  tally.notes.clear();
  __syncthreads();
}

/// What a grid may do beside clear_route_sums_kernel() before begin_block(): read its inputs, but
/// no sooner.
__device__ __forceinline__ void begin_beside_clearing(const RouteTask& task) {
  if (task.beside_clearing && threadIdx.x == 0) forget_cached();
}

/// Adds a block's sums to the batch's once the launch before, if there was need of one, has zeroed
/// those. For whole blocks that route no more.
__device__ inline void finish_block(const RouteTask& task, const BlockTally& tally,
                                    const int& num_degenerate_rows) {
  let_next_grid_start();
  if (!task.has_sums()) return;
  __syncthreads();
  if (gridDim.x > 1) wait_for_previous_grid();
  add_block_sums(task, tally, num_degenerate_rows);
}

/// The tokens of a warp.
struct TokenSteps {
  int64_t first = 0;
  int64_t end = 0;
  int64_t step = 1;
};

/// Every token of the batch has one warp of the grid, which takes `at_once` neighbours.
__device__ __forceinline__ TokenSteps tokens_over_grid(const RouteTask& task, int at_once = 1) {
  return {at_once * global_warp_index(), task.logits.rows,
          at_once * static_cast<int64_t>(gridDim.x) * warps_per_block()};
}

/// Routes a warp's tokens from the first of `tokens` on while they are usual, and leaves it at one
/// that is not. The first row may have been loaded before.
template <int kPerLane>
__device__ void route_usual_tokens(const RouteTask& task, TokenSteps& tokens,
                                   const BlockTally& tally, SelectionScratch& memory,
                                   RowAhead<kPerLane>& row) {
  if constexpr (RowAhead<kPerLane>::kKnown) {
    while (tokens.first < tokens.end) {
      const int64_t token = tokens.first;
      if (task.token_mask != nullptr && task.token_mask[token] == 0) {
        store_padding(task, token);
      } else {
        if (row.token != token) row.load(task, token);
        if (!route_usual_row(task, token, row.words, tally, candidates_in(memory))) return;
      }
      tokens.first += tokens.step;
    }
  }
}

/// Routes tokens, a warp one at a time; lane l holds neighbouring experts. `selection` has an
/// element for every warp.
template <int kPerLane>
__device__ void route_tokens(const RouteTask& task, TokenSteps tokens, const BlockMemory& block,
                             SelectionScratch* selection, RowAhead<kPerLane>& row,
                             int& num_degenerate_rows) {
  if (task.has_sums()) {
    begin_block(task, block.tally, num_degenerate_rows);
  } else if (block.tally.notes.takers != nullptr) {
    block.tally.notes.clear();
    __syncthreads();
  }
  SelectionScratch& memory = selection[warp_index_in_block()];
  WarpScratch scratch{memory, block.groups};
  for (; tokens.first < tokens.end; tokens.first += tokens.step) {
    if (task.usual_rows != UsualRows::kNone) {
      route_usual_tokens(task, tokens, block.tally, memory, row);
      if (tokens.first >= tokens.end) break;
    }
    const int64_t token = tokens.first;
    if (task.token_mask != nullptr && task.token_mask[token] == 0) {
      store_padding(task, token);
      continue;
    }
    const bool degenerate = route_row<kPerLane>(task, token, block.tally, scratch);
    if (degenerate && task.num_degenerate_rows != nullptr && lane_index() == 0) {
      atomicAdd(&num_degenerate_rows, 1);
    }
    store_shared_experts(task, block.tally, token);
  }
}

}  // namespace switchyard::cuda

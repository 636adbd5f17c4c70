// The kernel of hash routing.
#pragma once

#include "cuda/block_router.cuh"

namespace switchyard::cuda {

/// One batch to route. What a table's experts weigh is asked of `route`, whose logits may be
/// absent.
struct HashTask {
  RouteTask route;
  VectorView<const int32_t> token_ids;
  MatrixView<const int32_t> table;
  float plain_weight = 0.0f;  ///< of every expert where there are no logits
};

/// The experts of a token in the lanes of a warp, those of slots `lane` and `lane` + 32; -1 in
/// slots that do not exist or list no expert.
struct ListedExperts {
  int first;
  int second;
};

__device__ inline int listed_expert(const HashTask& task, const int32_t* row, int slot) {
  if (slot >= task.route.config.top_k) return -1;
  const int expert = row[slot];
  return expert >= 0 && expert < task.route.config.num_experts ? expert : -1;
}

__device__ inline float logit_of(const HashTask& task, int64_t token, int expert) {
  return expert >= 0 ? element_at(task.route.logits, token, expert) : minus_infinity();
}

/// Writes the routed slots of a token. Returns whether none of its experts has a finite logit.
/// kPerLane: of a row to sum over, 0 where weights need none.
template <int kPerLane>
__device__ bool weigh_token(const HashTask& task, const BlockTally& tally, int64_t token,
                            const ListedExperts& experts) {
  const RouteTask& route = task.route;
  bool degenerate = false;
  float first = task.plain_weight;
  float second = task.plain_weight;
  if (route.logits.data != nullptr) {
    float max = 0.0f;
    float denominator = 0.0f;
    if constexpr (kPerLane > 0) {
      float x[kPerLane];
      load_clean_row(route, token, x);
      max = row_max(x);
      denominator = row_denominator(x, max);
    }
    first = logit_of(task, token, experts.first);
    second = logit_of(task, token, experts.second);
    degenerate = __any_sync(kAllLanes, is_finite(first) || is_finite(second) ? 1 : 0) == 0;
    const ChosenTerms terms = terms_of_logits(route.config, first, second, max, denominator);
    first = weight_of(route.config, terms.first, terms.total);
    second = weight_of(route.config, terms.second, terms.total);
  }
  for (int slot = lane_index(); slot < route.config.top_k; slot += kWarpSize) {
    const int expert = slot < kWarpSize ? experts.first : experts.second;
    if (expert >= 0) {
      store_choice(route, tally, token, slot, expert, slot < kWarpSize ? first : second);
    } else {
      store_nothing(route, token, slot);
    }
  }
  return degenerate;
}

/// One warp routes one token at a time. The sums of a grid of several blocks are zero before:
/// clear_route_sums().
template <int kPerLane>
__global__ void __launch_bounds__(kMaxRouteWarps* kWarpSize, 1) hash_kernel(HashTask task) {
  SWITCHYARD_SHARED(int, num_degenerate_rows);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  begin_beside_clearing(task.route);
  const BlockTally tally = BlockMemory(task.route, memory).tally;
  begin_block(task.route, tally, num_degenerate_rows);
  const int64_t num_warps = static_cast<int64_t>(gridDim.x) * warps_per_block();
  for (int64_t token = global_warp_index(); token < task.token_ids.size; token += num_warps) {
    const int64_t token_id = task.token_ids[token];
    if (token_id < 0 || token_id >= task.table.rows) {
      store_padding(task.route, token);
      continue;
    }
    const int32_t* row = task.table.row(token_id);
    const ListedExperts experts{listed_expert(task, row, lane_index()),
                                listed_expert(task, row, lane_index() + kWarpSize)};
    const bool degenerate = weigh_token<kPerLane>(task, tally, token, experts);
    if (degenerate && lane_index() == 0) atomicAdd(&num_degenerate_rows, 1);
    store_shared_experts(task.route, tally, token);
  }
  finish_block(task.route, tally, num_degenerate_rows);
}

}  // namespace switchyard::cuda

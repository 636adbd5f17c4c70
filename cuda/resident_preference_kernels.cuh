// The kernel that lets resident experts take the place of others in routed rows.
#pragma once

#include "cuda/block_router.cuh"
#include "cuda/resident_preference.cuh"

namespace switchyard::cuda {

/// A warp takes a token. `tokens_per_expert` is null or counts what the task's rows hold now.
template <int kPerLane>
__global__ void __launch_bounds__(kMaxRouteWarps* kWarpSize, 1)
    prefer_residents_kernel(RouteTask task, unsigned long long* tokens_per_expert) {
  SWITCHYARD_SHARED(SelectionScratch, selection, [kMaxRouteWarps]);
  SWITCHYARD_DYNAMIC_SHARED(unsigned char, memory);
  const BlockMemory block(task, memory);
  WarpScratch scratch{selection[warp_index_in_block()], block.groups};
  const int64_t num_warps = static_cast<int64_t>(gridDim.x) * warps_per_block();
  for (int64_t token = global_warp_index(); token < task.logits.rows; token += num_warps) {
    float sacrificed = 0.0f;
    if (task.token_mask == nullptr || task.token_mask[token] != 0) {
      const AbsentSlots absent = find_absent_slots(task, token);
      if (absent.mask != 0) {
        sacrificed =
            prefer_residents_in_row<kPerLane>(task, token, absent, tokens_per_expert, scratch);
      }
    }
    if (task.sacrificed_mass != nullptr && lane_index() == 0) {
      task.sacrificed_mass[token] = sacrificed;
    }
  }
}

}  // namespace switchyard::cuda

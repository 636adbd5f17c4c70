// How many threads there are, and what the threads of a block do together: counting without queues,
// sums.
#pragma once

#include "cuda/intrinsics.cuh"

namespace switchyard::cuda {

// A grid has fewer blocks than 2^31; blocks take several items where there are more.
inline constexpr int64_t kMaxGridBlocks = int64_t{1} << 30;

inline constexpr int kMaxWarps = 32;  ///< of a block

__device__ __forceinline__ void clear_counters(uint32_t* counters, int size) {
#pragma unroll 1  // without a division by the step
  for (int i = static_cast<int>(threadIdx.x); i < size; i += static_cast<int>(blockDim.x)) {
    counters[i] = 0;
  }
}

/// Adds 1 to counters[key] for every lane that is `counted`. Equal keys of a warp are one addition,
/// so that a popular key does not make lanes queue up.
__device__ __forceinline__ void count_key(uint32_t* counters, uint32_t key, bool counted) {
  const uint32_t peers = __match_any_sync(kAllLanes, counted ? key : UINT32_MAX);
  if (counted && (peers & lanes_before()) == 0) {
    atomicAdd(&counters[key], static_cast<uint32_t>(__popc(peers)));
  }
}

/// Turns the counts of one column, those of all warps in counts[warp][num_columns], into the sums
/// of the warps before; returns their sum.
__device__ inline uint32_t scan_warps(uint32_t* counts, int num_columns, int column) {
  constexpr int kAtOnce = 8;
  const int num_warps = warps_per_block();
  uint32_t sum = 0;
  for (int first = 0; first < num_warps; first += kAtOnce) {
    uint32_t batch[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      batch[i] = first + i < num_warps ? counts[(first + i) * num_columns + column] : 0;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i < num_warps) counts[(first + i) * num_columns + column] = sum;
      sum += batch[i];
    }
  }
  return sum;
}

template <typename T>
__device__ T warp_inclusive_sum(T value) {
#pragma unroll
  for (int distance = 1; distance < kWarpSize; distance *= 2) {
    const T below = __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(distance));
    if (lane_index() >= distance) value += below;
  }
  return value;
}

/// Sum of the threads' values before this one, and in `total` of all. For whole blocks;
/// `warp_sums` are kMaxWarps values in shared memory.
__device__ inline int64_t block_exclusive_sum(int64_t value, int64_t* warp_sums, int64_t& total) {
  const int64_t inclusive = warp_inclusive_sum(value);
  __syncthreads();  // the sum before this one has been read
  if (lane_index() == kWarpSize - 1) warp_sums[warp_index_in_block()] = inclusive;
  __syncthreads();
  const int64_t sums =
      warp_inclusive_sum(lane_index() < warps_per_block() ? warp_sums[lane_index()] : 0);
  total = __shfl_sync(kAllLanes, sums, kWarpSize - 1);
  const int64_t before = __shfl_sync(kAllLanes, sums, max(warp_index_in_block() - 1, 0));
  return (warp_index_in_block() == 0 ? 0 : before) + inclusive - value;
}

}  // namespace switchyard::cuda

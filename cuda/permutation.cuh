// What the kernels of permutation have in common.
#pragma once

#include "cuda/intrinsics.cuh"
#include "switchyard/data_type.h"

namespace switchyard::cuda {

// A grid has fewer blocks than 2^31; blocks take several items where there are more.
inline constexpr int64_t kMaxGridBlocks = int64_t{1} << 30;

constexpr int64_t ceil_div(int64_t count, int64_t divisor) {
  return (count + divisor - 1) / divisor;
}

/// The gate weight of one slot; 1 where no weights are given.
__device__ __forceinline__ float gate_weight_at(const ConstTensorView& weights, int64_t token,
                                                int64_t slot) {
  return weights.data == nullptr ? 1.0f : element_at(weights, token, slot);
}

}  // namespace switchyard::cuda

// What the kernels of permutation have in common.
#pragma once

#include "cuda/threads.cuh"
#include "switchyard/data_type.h"

namespace switchyard::cuda {

/// The gate weight of one slot; 1 where no weights are given.
__device__ __forceinline__ float gate_weight_at(const ConstTensorView& weights, int64_t token,
                                                int64_t slot) {
  return weights.data == nullptr ? 1.0f : element_at(weights, token, slot);
}

}  // namespace switchyard::cuda

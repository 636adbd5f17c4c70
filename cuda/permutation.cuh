// What the kernels of permutation have in common.
#pragma once

#include "cuda/intrinsics.cuh"
#include "switchyard/data_type.h"

namespace switchyard::cuda {

inline constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ uint32_t lanes_below() { return (1u << lane_index()) - 1u; }

/// The gate weight of one slot; 1 where no weights are given. The front door let no other types in.
__device__ __forceinline__ float gate_weight_at(const ConstTensorView& weights, int64_t token,
                                                int64_t slot) {
  if (weights.data == nullptr) return 1.0f;
  const int64_t index = token * weights.row_stride + slot;
  if (weights.dtype == DataType::kFloat32) return static_cast<const float*>(weights.data)[index];
  const uint32_t bits = static_cast<const uint16_t*>(weights.data)[index];
  return __uint_as_float(bits << 16);
}

}  // namespace switchyard::cuda

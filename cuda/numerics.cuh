// Floats as kernels tell them apart and order them.
#pragma once

#include "cuda/intrinsics.cuh"

namespace switchyard::cuda {

__device__ inline float minus_infinity() { return __uint_as_float(0xff800000u); }

__device__ inline bool is_finite(float x) {
  return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

/// Integers above 0 that order as all floats but NaN do, -0 like +0.
__device__ inline uint32_t ordered_bits(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

/// Integers above 0 that order as finite floats do, -0 like +0; 0 for NaN and infinities.
__device__ inline uint32_t ordered_key(float x) { return is_finite(x) ? ordered_bits(x) : 0u; }

/// The float of a key above 0; -inf for 0.
__device__ inline float float_of_key(uint32_t key) {
  const uint32_t bits = key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu);
  return key != 0 ? __uint_as_float(bits) : minus_infinity();
}

}  // namespace switchyard::cuda

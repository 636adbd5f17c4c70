// Floats as kernels tell them apart and order them.
#pragma once

#include "cuda/intrinsics.cuh"
#include "switchyard/numerics.h"

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

/// A whole number below 2^23, without the conversion's unit, which few threads share.
__device__ inline int small_integer(float whole) {
  constexpr float kUnitSpaced = 0x1p23f;
  return __float_as_int(whole + kUnitSpaced) - __float_as_int(kUnitSpaced);
}

/// upper / (1 + e) for e in [0, 1], where `upper` is e or 1: rounded as a division is, but without
/// its branch for quotients that cannot be here, so that several run side by side. A polynomial and
/// two steps of Newton's method approach 1 / (1 + e).
__device__ inline float over_one_plus(float upper, float e) {
  const float lower = 1.0f + e;
  float inverse = __fmaf_rn(32.0f / 99.0f, lower, -144.0f / 99.0f);
  inverse = __fmaf_rn(inverse, lower, 210.0f / 99.0f);
  inverse = __fmaf_rn(inverse, __fmaf_rn(-lower, inverse, 1.0f), inverse);
  inverse = __fmaf_rn(inverse, __fmaf_rn(-lower, inverse, 1.0f), inverse);
  const float near = upper * inverse;
  const float quotient = __fmaf_rn(__fmaf_rn(-lower, near, upper), inverse, near);
  // The one that comes out a unit too small.
  return upper == 1.0f && lower == 0x1.fffffep+0f ? 0x1.000002p-1f : quotient;
}

/// numerics::sigmoid().
__device__ inline float sigmoid(float x) {
  const float e = numerics::exp(x < 0.0f ? x : -x);
  return over_one_plus(x < 0.0f ? e : 1.0f, e);
}

}  // namespace switchyard::cuda

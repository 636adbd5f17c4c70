// The transcendental functions of the contract, the same bits on host and device.
//
// Each is a fixed sequence of float32 operations: additions, multiplications, divisions, square
// roots and explicit fused multiply-adds, all IEEE 754 round-to-nearest-even with subnormals kept.
// Whoever compiles this turns implicit contraction off (-ffp-contract=off, --fmad=false). The
// vector forms of the CPU backend read the same constants.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "switchyard/tensor_view.h"

namespace switchyard::numerics {

/// exp(x) = 2^n * 2^f with n = round(x * log2(e)) and f = x * log2(e) - n in [-0.5, 0.5].
struct ExpConstants {
  static constexpr float kLog2E = 0x1.715476p+0f;      ///< log2(e) rounded to float32
  static constexpr float kLog2ERest = 0x1.4ae0cp-26f;  ///< log2(e) - kLog2E
  static constexpr float kRoundingBias = 0x1.8p+23f;   ///< adding it rounds to an integer
  /// 2^f, constant term first; relative error below 2e-8 on [-0.5, 0.5].
  static constexpr float kPoly[7] = {1.0f,
                                     0.6931471824645996f,
                                     0.24022646248340607f,
                                     0.05550328642129898f,
                                     0.009618489071726799f,
                                     0.0013399930903688073f,
                                     0.0001534581242594868f};
  static constexpr float kLowest = -110.0f;       ///< exp is 0 below; keeps n in range
  static constexpr float kLowestNormal = -87.3f;  ///< above, 2^n * 2^f is a normal float32
  static constexpr float kHighest = 88.7f;        ///< exp saturates here, finite
};

/// log1p(t) = 2 atanh(z), z = t / (2 + t); atanh(z) / z in powers of z^2, z^2 <= 1/9.
struct Log1pConstants {
  static constexpr float kPoly[6] = {1.0f,
                                     0.3333333730697632f,
                                     0.19999438524246216f,
                                     0.14308442175388336f,
                                     0.10713827610015869f,
                                     0.12150471657514572f};
  static constexpr float kLn2 = 0x1.62e43p-1f;        ///< ln(2) rounded to float32
  static constexpr float kLn2Rest = -0x1.05c61p-29f;  ///< ln(2) - kLn2
};

SWITCHYARD_HOST_DEVICE inline float fused_multiply_add(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

/// C::kPoly from the power kPower up, by Horner's rule: c + x * (…).
template <typename C, int kPower, int kDegree>
SWITCHYARD_HOST_DEVICE inline float polynomial(float x) {
  constexpr float kCoefficient = C::kPoly[kPower];
  if constexpr (kPower == kDegree) {
    return kCoefficient;
  } else {
    return fused_multiply_add(polynomial<C, kPower + 1, kDegree>(x), x, kCoefficient);
  }
}

/// e^x for finite x, within 1.2 ulp of the true value; 0 below -110, e^88.7 above 88.7.
SWITCHYARD_HOST_DEVICE inline float exp(float x) {
  using C = ExpConstants;
  x = x < C::kHighest ? x : C::kHighest;
  const float clamped = x > C::kLowest ? x : C::kLowest;
  const float biased = fused_multiply_add(clamped, C::kLog2E, C::kRoundingBias);
  const float n = biased - C::kRoundingBias;
  float f = fused_multiply_add(clamped, C::kLog2E, -n);
  f = fused_multiply_add(clamped, C::kLog2ERest, f);
  const float p = polynomial<C, 0, 6>(f);
  // Two factors, so that a subnormal result is rounded once and 2^128 is never formed.
  const auto exponent = static_cast<int32_t>(n);
  const int32_t half = exponent >> 1;
  const float first = std::bit_cast<float>((half + 127) << 23);
  const float second = std::bit_cast<float>((exponent - half + 127) << 23);
  return p * first * second;
}

/// exp for sums that span a row: 0 where the result would be subnormal. x <= 0.
SWITCHYARD_HOST_DEVICE inline float exp_or_zero(float x) {
  return x < ExpConstants::kLowestNormal ? 0.0f : exp(x);
}

/// 1 / (1 + e^-x) for finite x, within 3 ulp.
SWITCHYARD_HOST_DEVICE inline float sigmoid(float x) {
  const float e = exp(x < 0.0f ? x : -x);
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/// log(1 + t) for t in [0, 1], within 3 ulp.
SWITCHYARD_HOST_DEVICE inline float log1p(float t) {
  const float z = t / (2.0f + t);
  const float z2 = z * z;
  return (z + z) * polynomial<Log1pConstants, 0, 5>(z2);
}

/// log(x) for a normal, positive x, within 3 ulp away from x = 1.
SWITCHYARD_HOST_DEVICE inline float log(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto n = static_cast<float>(static_cast<int32_t>(bits >> 23) - 127);
  const float mantissa = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f800000u);
  const float tail = fused_multiply_add(n, Log1pConstants::kLn2Rest, log1p(mantissa - 1.0f));
  return fused_multiply_add(n, Log1pConstants::kLn2, tail);
}

/// sqrt(log(1 + e^x)) for finite x, within 4 ulp from kLowestNormal up; below, where e^x has lost
/// bits, within 2^-74 of the true value.
SWITCHYARD_HOST_DEVICE inline float sqrt_softplus(float x) {
  const float tail = log1p(exp(x < 0.0f ? x : -x));
  return std::sqrt((x > 0.0f ? x : 0.0f) + tail);
}

}  // namespace switchyard::numerics

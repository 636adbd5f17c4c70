// The exponential of someone who owes nobody equal bits.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace switchyard::bench {

/// e^x for x in [-87, 88], relative error about 3e-7; branch-free, so that loops over it vectorise.
inline float fast_exp(float x) {
  x = std::max(x, -87.0f);
  const float t = x * 1.44269504f;
  const float n = std::nearbyint(t);
  const float f = t - n;
  float p = 0.0013276472f;
  p = p * f + 0.009675541f;
  p = p * f + 0.05550713f;
  p = p * f + 0.2402212f;
  p = p * f + 0.69314694f;
  p = p * f + 1.0f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) +
                              (static_cast<uint32_t>(static_cast<int32_t>(n)) << 23));
}

}  // namespace switchyard::bench

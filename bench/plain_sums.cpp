#include "bench/plain_sums.h"

#include <algorithm>
#include <cmath>

#include "bench/plain_exp.h"
#include "switchyard/numerics.h"

namespace switchyard::bench {

float contract_denominator(const float* logits, int64_t count) {
  using C = numerics::ExpConstants;
  alignas(64) float terms[1024];
  for (int64_t i = 0; i < count; ++i) {
    const float x = std::max(-std::abs(logits[i]), C::kLowestNormal);
    const float biased = std::fma(x, C::kLog2E, C::kRoundingBias);
    const float n = biased - C::kRoundingBias;
    const float f = std::fma(x, C::kLog2ERest, std::fma(x, C::kLog2E, -n));
    float p = C::kPoly[6];
    p = std::fma(p, f, C::kPoly[5]);
    p = std::fma(p, f, C::kPoly[4]);
    p = std::fma(p, f, C::kPoly[3]);
    p = std::fma(p, f, C::kPoly[2]);
    p = std::fma(p, f, C::kPoly[1]);
    p = std::fma(p, f, C::kPoly[0]);
    terms[i] =
        std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (std::bit_cast<uint32_t>(biased) << 23));
  }
  for (int64_t half = count / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) terms[i] += terms[i + half];
  }
  return terms[0];
}

float free_denominator(const float* logits, int64_t count) {
  float sums[16] = {};
  for (int64_t i = 0; i < count; i += 16) {
    for (int64_t j = 0; j < 16; ++j) sums[j] += fast_exp(-std::abs(logits[i + j]));
  }
  float sum = 0.0f;
  for (const float part : sums) sum += part;
  return sum;
}

uint32_t xor_of_words(const void* words, int64_t count) {
  const auto* p = static_cast<const uint32_t*>(words);
  uint32_t result = 0;
  for (int64_t i = 0; i < count; ++i) result ^= p[i];
  return result;
}

}  // namespace switchyard::bench

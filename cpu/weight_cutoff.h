// Which gate weights a full expert keeps: everything above one value, and the first few equal to
// it.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace switchyard::cpu {

/// Orders as the weights do: -0 equals +0, and NaN comes before everything else.
inline uint32_t weight_key(float weight) {
  if (std::isnan(weight)) return 0;
  const auto bits = std::bit_cast<uint32_t>(weight + 0.0f);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

struct WeightCutoff {
  uint32_t key = 0;  ///< larger keys are all kept
  int64_t ties = 0;  ///< how many equal ones are kept, the first in order
};

/// The cutoff that keeps `capacity` of `num_keys` keys; at most all of them, 0 or more.
WeightCutoff find_weight_cutoff(const uint32_t* keys, int64_t num_keys, int64_t capacity);

}  // namespace switchyard::cpu

// Elements of rows to move and combine, for tests.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

#include "switchyard/data_type.h"
#include "tests/permutation_case.h"
#include "tests/random_stream.h"

namespace switchyard::test {

/// Random bits of one of the element types: every NaN, infinity and subnormal may come up.
template <typename T>
T random_element(RandomStream& random) {
  // Widely spread weights and values meet at sums near 1 often enough to be rounded everywhere.
  const auto moderate =
      static_cast<float>(std::ldexp(random.normal(), one_of(random, {-22, -9, 0, 3})));
  if constexpr (std::is_same_v<T, float>) {
    return random.chance(90) ? moderate : std::bit_cast<float>(random.bits32());
  } else if constexpr (std::is_same_v<T, Float16>) {
    return random.chance(90) ? to_float16(moderate)
                             : Float16{static_cast<uint16_t>(random.bits32())};
  } else {
    return random.chance(90) ? to_bfloat16(moderate)
                             : BFloat16{static_cast<uint16_t>(random.bits32())};
  }
}

/// The same bits in the same order, whatever they mean.
template <typename T>
std::vector<std::byte> bytes_of(const std::vector<T>& elements) {
  const auto bytes = std::as_bytes(std::span(elements));
  return {bytes.begin(), bytes.end()};
}

/// A sum as a token's element.
template <typename Out>
Out rounded(float sum) {
  if (std::isnan(sum)) sum = std::bit_cast<float>(0x7fc00000u);
  if constexpr (std::is_same_v<Out, float>) return sum;
  if constexpr (std::is_same_v<Out, Float16>) return to_float16(sum);
  if constexpr (std::is_same_v<Out, BFloat16>) return to_bfloat16(sum);
}

}  // namespace switchyard::test

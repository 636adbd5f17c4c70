// Conversions between float32 and the 16-bit types, for every 16-bit pattern.
#include "switchyard/data_type.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

/// IEEE 754 binary16 from its fields, in float64.
double value_of(Float16 half) {
  const int exponent = (half.bits >> 10) & 31;
  const int mantissa = half.bits & 1023;
  const double sign = (half.bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(DataTypes, EveryFloat16Widens) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const Float16 half{static_cast<uint16_t>(bits)};
    const double expected = value_of(half);
    const float actual = widen(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << bits;
    } else {
      ASSERT_EQ(actual, expected) << bits;
      ASSERT_EQ(std::signbit(actual), (bits & 0x8000u) != 0) << bits;
    }
  }
}

TEST(DataTypes, EveryBFloat16Widens) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const float actual = widen(BFloat16{static_cast<uint16_t>(bits)});
    ASSERT_EQ(std::bit_cast<uint32_t>(actual), bits << 16);
  }
}

TEST(DataTypes, EverySixteenBitNumberSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000u; ++bits) {
    const auto narrow = static_cast<uint16_t>(bits);
    const float from_half = widen(Float16{narrow});
    const float from_bfloat = widen(BFloat16{narrow});
    if (std::isnan(from_half)) {
      ASSERT_TRUE(std::isnan(widen(to_float16(from_half))));
    } else {
      ASSERT_EQ(to_float16(from_half).bits, narrow);
    }
    if (std::isnan(from_bfloat)) {
      ASSERT_TRUE(std::isnan(widen(to_bfloat16(from_bfloat))));
    } else {
      ASSERT_EQ(to_bfloat16(from_bfloat).bits, narrow);
    }
  }
}

/// The two 16-bit neighbours of `x` decide: nearest wins, then the even one.
template <typename T>
uint16_t nearest(float x, T (*convert)(float), double overflow_at) {
  const uint16_t candidate = convert(x).bits;
  const auto sign = static_cast<uint16_t>(candidate & 0x8000u);
  uint16_t best = candidate;
  double best_distance = INFINITY;
  for (int step = -2; step <= 2; ++step) {
    const int magnitude = (candidate & 0x7fff) + step;
    if (magnitude < 0) continue;
    const auto bits = static_cast<uint16_t>(magnitude | sign);
    double value = widen(T{bits});
    if (std::isnan(value)) continue;
    // Rounding treats infinity as the next number in line.
    if (std::isinf(value)) value = std::copysign(overflow_at, x);
    const double distance = std::fabs(value - x);
    if (distance < best_distance || (distance == best_distance && bits % 2 == 0)) {
      best = bits;
      best_distance = distance;
    }
  }
  return best;
}

TEST(DataTypes, NarrowingRoundsToNearestEven) {
  RandomStream random(601);
  for (int i = 0; i < 2'000'000; ++i) {
    uint32_t bits = random.bits32();
    if (i % 4 == 0) bits &= 0xffff8000u;                        // exact halves for bfloat16
    if (i % 4 == 1) bits &= 0xfffff000u;                        // and for float16
    if (i % 2 == 1) bits = (bits & 0x8fffffffu) | 0x30000000u;  // float16's range
    const float x = std::bit_cast<float>(bits);
    if (!std::isfinite(x)) continue;
    ASSERT_EQ(to_bfloat16(x).bits, nearest(x, to_bfloat16, 0x1p128)) << x;
    if (std::fabs(x) < 65536.0f) {
      ASSERT_EQ(to_float16(x).bits, nearest(x, to_float16, 65536.0)) << x;
    } else {
      ASSERT_EQ(to_float16(x).bits & 0x7fff, 0x7c00) << x;
    }
  }
}

TEST(DataTypes, NarrowingKeepsWhatIsNotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(to_float16(kInfinity).bits, 0x7c00);
  EXPECT_EQ(to_float16(-kInfinity).bits, 0xfc00);
  EXPECT_EQ(to_bfloat16(kInfinity).bits, 0x7f80);
  EXPECT_EQ(to_float16(65519.996f).bits, 0x7bff);
  EXPECT_EQ(to_float16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_float16(-0.0f).bits, 0x8000);
  // A NaN whose payload lies in the low bits only must not become an infinity.
  const float nan = std::bit_cast<float>(0x7f800001u);
  EXPECT_TRUE(std::isnan(widen(to_float16(nan))));
  EXPECT_TRUE(std::isnan(widen(to_bfloat16(nan))));
}

#if defined(__FLT16_MANT_DIG__) && defined(__x86_64__)
TEST(DataTypes, Float16IsTheCompilers) {
  RandomStream random(611);
  for (int i = 0; i < 500'000; ++i) {
    const float x =
        i % 2 == 0 ? std::bit_cast<float>(random.bits32()) : static_cast<float>(random.normal());
    if (std::isnan(x)) continue;
    ASSERT_EQ(to_float16(x).bits, std::bit_cast<uint16_t>(static_cast<_Float16>(x))) << x;
  }
}
#endif

}  // namespace
}  // namespace switchyard::test

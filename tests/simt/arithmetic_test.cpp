// The executor's integer, bit and float functions against plain loops and known values.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cuda/numerics.cuh"
#include "tests/random_stream.h"
#include "tests/simt/simt.h"

namespace switchyard::test {
namespace {

constexpr int kSamples = 2000;
constexpr int kMaxInt = std::numeric_limits<int>::max();
constexpr int kMinInt = std::numeric_limits<int>::min();

TEST(SimtArithmetic, CountsBits) {
  RandomStream random(11);
  for (int i = 0; i < kSamples; ++i) {
    const uint64_t x = random.bits() >> random.below(64) << random.below(64);
    int count = 0;
    int first = 0;
    int zeros_above = 64;
    uint64_t reversed = 0;
    for (int bit = 0; bit < 64; ++bit) {
      if ((x >> bit & 1) == 0) continue;
      ++count;
      if (first == 0) first = bit + 1;
      zeros_above = 63 - bit;
      reversed |= uint64_t{1} << (63 - bit);
    }
    EXPECT_EQ(__popcll(x), count);
    EXPECT_EQ(__ffsll(static_cast<long long>(x)), first);
    EXPECT_EQ(__clzll(static_cast<long long>(x)), zeros_above);
    EXPECT_EQ(__brevll(x), reversed);
    const auto low = static_cast<uint32_t>(x);
    EXPECT_EQ(__popc(low), __popcll(low));
    EXPECT_EQ(__ffs(static_cast<int>(low)), __ffsll(low));
    EXPECT_EQ(__clz(static_cast<int>(low)), __clzll(low) - 32);
    EXPECT_EQ(__brev(low), __brevll(low) >> 32);
  }
}

TEST(SimtArithmetic, MovesBytesAndBits) {
  EXPECT_EQ(__byte_perm(0x33221100u, 0x77665544u, 0x7531u), 0x77553311u);
  EXPECT_EQ(__byte_perm(0x33221180u, 0x77665544u, 0x0819u), 0x80ff1100u);  // 8 and 9: the sign
  EXPECT_EQ(__funnelshift_l(0x80000000u, 1u, 1), 3u);
  EXPECT_EQ(__funnelshift_r(0x80000000u, 1u, 31), 3u);
  EXPECT_EQ(__funnelshift_l(5u, 7u, 32), 7u);
  EXPECT_EQ(__umulhi(~0u, ~0u), 0xfffffffeu);
  EXPECT_EQ(__mulhi(-1, 1), -1);
  EXPECT_EQ(__umul64hi(~0ull, ~0ull), 0xfffffffffffffffeull);
}

TEST(SimtArithmetic, ConversionsSaturate) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(__float2int_rn(2.5f), 2);
  EXPECT_EQ(__float2int_rn(3.5f), 4);
  EXPECT_EQ(__float2int_rz(-3.9f), -3);
  EXPECT_EQ(__float2int_ru(2.1f), 3);
  EXPECT_EQ(__float2int_rd(-2.1f), -3);
  EXPECT_EQ(__float2int_rn(1e20f), kMaxInt);
  EXPECT_EQ(__float2int_rz(-infinity), kMinInt);
  EXPECT_EQ(__float2int_rz(nan), 0);
  EXPECT_EQ(__float2uint_rn(-1.0f), 0u);
  EXPECT_EQ(__float2uint_rz(infinity), ~0u);
  EXPECT_EQ(__int2float_rn(kMaxInt), 0x1p31f);
  EXPECT_EQ(__uint2float_rn(~0u), 0x1p32f);
  EXPECT_EQ(__float_as_uint(1.0f), 0x3f800000u);
  EXPECT_EQ(__uint_as_float(0x40000000u), 2.0f);
  EXPECT_EQ(__int_as_float(__float_as_int(-0.5f)), -0.5f);
  EXPECT_EQ(__longlong_as_double(__double_as_longlong(1.5)), 1.5);
}

TEST(SimtArithmetic, FusedMultiplyAddRoundsOnce) {
  const float a = 1.0f + 0x1p-12f;
  EXPECT_EQ(__fmaf_rn(a, a, -(1.0f + 0x1p-11f)), 0x1p-24f);
  EXPECT_EQ(__fadd_rn(__fmul_rn(a, a), -(1.0f + 0x1p-11f)), 0.0f);
  EXPECT_EQ(__fma_rn(1.0 + 0x1p-30, 1.0 + 0x1p-30, -(1.0 + 0x1p-29)), 0x1p-60);
  EXPECT_EQ(__fmaf_rn(0x1p-100f, 0x1p-49f, 0.0f), 0x1p-149f);  // denormals are kept
}

TEST(SimtArithmetic, OfANumberAndANaNTheNumberIsChosen) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(min(1.0f, nan), 1.0f);
  EXPECT_EQ(max(nan, 1.0f), 1.0f);
  EXPECT_EQ(max(__uint_as_float(0x7f800001u), 1.0f), 1.0f);
  EXPECT_EQ(__float_as_uint(max(-nan, -nan)), 0x7fffffffu);
  EXPECT_EQ(min(-1, 1), -1);
  EXPECT_EQ(max(1u, ~0u), ~0u);
  EXPECT_EQ(__saturatef(nan), 0.0f);
  EXPECT_EQ(__saturatef(2.0f), 1.0f);
}

TEST(SimtArithmetic, NarrowFloatsComeFromTheRealHeaders) {
  for (const float x : {0.0f, 1.0f, -2.5f, 3.0e38f, 1.0e-40f}) {
    const auto bits = __float_as_uint(x);
    const uint32_t nearest = bits + 0x7fffu + (bits >> 16 & 1u);
    EXPECT_EQ(__float_as_uint(__bfloat162float(__float2bfloat16(x))), nearest & 0xffff0000u);
  }
  EXPECT_EQ(__half2float(__float2half(0x1p-24f)), 0x1p-24f);
}

/// A part of all sigmoids: of every exponential that is not lost in the sum a thousandth, and the
/// largest ones.
TEST(SimtArithmetic, SigmoidsAreDivisions) {
  const auto expect_quotients = [](float e) {
    EXPECT_EQ(cuda::over_one_plus(e, e), e / (1.0f + e)) << e;
    EXPECT_EQ(cuda::over_one_plus(1.0f, e), 1.0f / (1.0f + e)) << e;
  };
  constexpr uint32_t kOne = 0x3f800000u;
  for (uint32_t bits = 0x32000000u; bits <= kOne; bits += 997) {
    expect_quotients(__uint_as_float(bits));
  }
  for (uint32_t below = 0; below < 100; ++below) expect_quotients(__uint_as_float(kOne - below));
  for (const float e : {0.0f, 0x1p-149f, 0x1p-126f, 0x1p-100f, 0x1p-25f}) expect_quotients(e);
  for (const float x : {0.0f, -0.0f, 0x1p-24f, -0x1p-24f, 88.8f, -88.8f, 0x1p127f, -0x1p127f}) {
    EXPECT_EQ(cuda::sigmoid(x), numerics::sigmoid(x)) << x;
  }
}

}  // namespace
}  // namespace switchyard::test

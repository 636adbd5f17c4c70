// How far the contract's functions are from float64, in units in the last place of float32.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <limits>

#include "switchyard/numerics.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

/// The spacing of float32 numbers at `value`.
double ulp_at(double value) {
  const double magnitude = std::max(std::fabs(value), static_cast<double>(FLT_MIN));
  return std::ldexp(1.0, std::ilogb(magnitude) - 23);
}

struct Worst {
  double ulps = 0.0;
  float at = 0.0f;

  void look(float x, double expected, float actual) {
    const double error = std::fabs(actual - expected) / ulp_at(expected);
    if (std::isnan(actual) || error > ulps) *this = {error, x};
  }
  void report(const char* name, double limit) const {
    std::printf("%-28s max %.3f ulp at %.9g\n", name, ulps, static_cast<double>(at));
    EXPECT_LE(ulps, limit) << name << " at " << at;
  }
};

/// Every `stride`-th float from `low` to `high`, both ends included.
template <typename Visit>
void for_floats(float low, float high, uint32_t stride, const Visit& visit) {
  const auto rank = [](float x) {
    const auto bits = std::bit_cast<int32_t>(x);
    return int64_t{bits < 0 ? std::numeric_limits<int32_t>::min() - bits : bits};
  };
  const auto value = [](int64_t r) {
    const auto i = static_cast<int32_t>(r);
    return std::bit_cast<float>(i < 0 ? std::numeric_limits<int32_t>::min() - i : i);
  };
  for (int64_t r = rank(low); r < rank(high); r += stride) visit(value(r));
  visit(high);
}

double exact_sigmoid(double x) {
  return x < 0.0 ? std::exp(x) / (1.0 + std::exp(x)) : 1.0 / (1.0 + std::exp(-x));
}

double exact_sqrt_softplus(double x) {
  return std::sqrt(std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))));
}

TEST(Numerics, ExpIsWithinTwoUlp) {
  Worst normal;
  Worst subnormal;
  // A prime stride, so that the sample sees every pattern of low bits.
  for_floats(-87.3f, 88.7f, 211,
             [&](float x) { normal.look(x, std::exp(double{x}), numerics::exp(x)); });
  for_floats(-87.3f, 88.7f, 1009, [&](float x) { ASSERT_GT(numerics::exp(x), 0.0f); });
  for_floats(-104.0f, -87.3f, 1,
             [&](float x) { subnormal.look(x, std::exp(double{x}), numerics::exp(x)); });
  normal.report("exp", 1.2);
  subnormal.report("exp, subnormal results", 1.2);
}

TEST(Numerics, ExpSaturates) {
  EXPECT_EQ(numerics::exp(0.0f), 1.0f);
  EXPECT_EQ(numerics::exp(-0.0f), 1.0f);
  EXPECT_EQ(numerics::exp(-110.0f), 0.0f);
  EXPECT_EQ(numerics::exp(-FLT_MAX), 0.0f);
  EXPECT_EQ(numerics::exp(-INFINITY), 0.0f);
  EXPECT_EQ(numerics::exp(FLT_MAX), numerics::exp(88.7f));
  EXPECT_TRUE(std::isfinite(numerics::exp(88.7f)));
}

TEST(Numerics, ExpOrZeroIsExpWhereTheResultIsNormal) {
  for_floats(-120.0f, 0.0f, 997, [](float x) {
    ASSERT_EQ(numerics::exp_or_zero(x), x < -87.3f ? 0.0f : numerics::exp(x)) << x;
  });
  EXPECT_GE(numerics::exp_or_zero(-87.3f), FLT_MIN);
  EXPECT_EQ(numerics::exp_or_zero(-INFINITY), 0.0f);
}

TEST(Numerics, SigmoidIsWithinThreeUlp) {
  Worst worst;
  for_floats(-104.0f, 104.0f, 211,
             [&](float x) { worst.look(x, exact_sigmoid(x), numerics::sigmoid(x)); });
  worst.report("sigmoid", 3.0);
  EXPECT_EQ(numerics::sigmoid(FLT_MAX), 1.0f);
  EXPECT_EQ(numerics::sigmoid(-FLT_MAX), 0.0f);
}

TEST(Numerics, Log1pIsWithinThreeUlp) {
  Worst worst;
  for_floats(FLT_MIN, 1.0f, 101,
             [&](float t) { worst.look(t, std::log1p(double{t}), numerics::log1p(t)); });
  worst.report("log1p", 3.0);
  EXPECT_EQ(numerics::log1p(0.0f), 0.0f);
}

TEST(Numerics, LogIsWithinThreeUlpAwayFromOne) {
  Worst worst;
  const auto look = [&](float x) { worst.look(x, std::log(double{x}), numerics::log(x)); };
  for_floats(FLT_MIN, 0.75f, 211, look);
  for_floats(1.0f, FLT_MAX, 211, look);
  worst.report("log", 3.0);
  EXPECT_EQ(numerics::log(1.0f), 0.0f);
}

TEST(Numerics, SqrtSoftplusIsWithinFourUlp) {
  Worst worst;
  for_floats(-87.3f, FLT_MAX, 211,
             [&](float x) { worst.look(x, exact_sqrt_softplus(x), numerics::sqrt_softplus(x)); });
  worst.report("sqrt_softplus", 4.0);
}

TEST(Numerics, SqrtSoftplusOfLostBitsIsNearZero) {
  double worst = 0.0;
  for_floats(-FLT_MAX, -87.3f, 499, [&](float x) {
    worst = std::max(worst, std::fabs(numerics::sqrt_softplus(x) - exact_sqrt_softplus(x)));
  });
  std::printf("sqrt_softplus below -87.3    max error 2^%.2f\n", std::log2(worst));
  EXPECT_LE(worst, 0x1p-74);
}

/// Monotone, so that the choice by score is the choice by logit. Where it is not, two logits a
/// rounding apart may swap: the library must say so, and this measures how often.
TEST(Numerics, SigmoidIsMonotoneToWithinRounding) {
  float previous = 0.0f;
  int64_t steps_down = 0;
  for_floats(-104.0f, 104.0f, 1009, [&](float x) {
    const float y = numerics::sigmoid(x);
    if (y < previous) {
      ++steps_down;
      ASSERT_LE((previous - y) / ulp_at(y), 3.0) << x;
    }
    previous = y;
  });
  std::printf("sigmoid steps down           %lld times\n", static_cast<long long>(steps_down));
}

}  // namespace
}  // namespace switchyard::test

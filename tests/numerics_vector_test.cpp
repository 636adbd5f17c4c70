// The vector forms of the contract's functions equal the scalar ones, bit for bit, on every target.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/numerics_vector_test.cpp"
#include "hwy/foreach_target.h"
// Behind foreach_target, as Highway asks.
#include "cpu/numerics-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::test::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;
namespace vector = switchyard::cpu::HWY_NAMESPACE;

/// Applies `function` to `count` floats, a whole number of vectors at a time; the last overlaps.
template <class Function>
void apply(const float* in, size_t count, float* out, const Function& function) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  for (size_t i = 0; i < count; i += lanes) {
    const size_t begin = i + lanes <= count ? i : count - lanes;
    hn::StoreU(function(d, hn::LoadU(d, in + begin)), d, out + begin);
  }
}

void exp_of(const float* in, size_t count, float* out) {
  apply(in, count, out, [](auto d, auto x) { return vector::Exp(d, x); });
}
void exp_or_zero_of(const float* in, size_t count, float* out) {
  apply(in, count, out, [](auto d, auto x) { return vector::ExpOrZero(d, x); });
}
void exp_normal_of(const float* in, size_t count, float* out) {
  apply(in, count, out, [](auto d, auto x) { return vector::ExpNormal(d, x); });
}
void sigmoid_of(const float* in, size_t count, float* out) {
  apply(in, count, out, [](auto d, auto x) { return vector::Sigmoid(d, x); });
}
void sigmoid_normal_of(const float* in, size_t count, float* out) {
  apply(in, count, out, [](auto d, auto x) { return vector::SigmoidNormal(d, x); });
}
void log1p_of(const float* in, size_t count, float* out) {
  apply(in, count, out, [](auto d, auto x) { return vector::Log1p(d, x); });
}
void sqrt_softplus_of(const float* in, size_t count, float* out) {
  apply(in, count, out, [](auto d, auto x) { return vector::SqrtSoftplus(d, x); });
}
void sqrt_softplus_normal_of(const float* in, size_t count, float* out) {
  apply(in, count, out, [](auto d, auto x) { return vector::SqrtSoftplusNormal(d, x); });
}

}  // namespace
}  // namespace switchyard::test::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/backend_variants.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

HWY_EXPORT(exp_of);
HWY_EXPORT(exp_or_zero_of);
HWY_EXPORT(exp_normal_of);
HWY_EXPORT(sigmoid_of);
HWY_EXPORT(sigmoid_normal_of);
HWY_EXPORT(log1p_of);
HWY_EXPORT(sqrt_softplus_of);
HWY_EXPORT(sqrt_softplus_normal_of);

/// Finite floats of every kind in [low, high].
std::vector<float> sample(float low, float high) {
  RandomStream random(701);
  std::vector<float> values = {low, high, 0.0f, -0.0f, 0x1p-149f, -0x1p-149f, 1.0f, -1.0f, -87.3f};
  while (values.size() < 400'000) {
    const auto uniform =
        static_cast<float>(low / 2 + high / 2 + (random.uniform() * 2 - 1) * (high / 2 - low / 2));
    values.push_back(values.size() % 2 == 0 ? uniform : std::bit_cast<float>(random.bits32()));
  }
  std::erase_if(values, [&](float x) { return !(x >= low && x <= high); });
  return values;
}

template <typename Vector>
void expect_same_bits(const char* name, float low, float high, float (*scalar)(float),
                      const Vector& vector) {
  const std::vector<float> in = sample(low, high);
  std::vector<float> out(in.size());
  for (const int64_t target : cpu_targets()) {
    const ScopedCpuTarget scope(target);
    vector(in.data(), in.size(), out.data());
    for (size_t i = 0; i < in.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(out[i]), std::bit_cast<uint32_t>(scalar(in[i])))
          << name << '(' << in[i] << ") on " << hwy::TargetName(target) << " is " << out[i];
    }
  }
}

constexpr float kMax = std::numeric_limits<float>::max();

constexpr float kLowestNormal = numerics::ExpConstants::kLowestNormal;

TEST(VectorNumerics, EqualTheScalarOnesOnEveryTarget) {
  expect_same_bits("Exp", -kMax, kMax, numerics::exp, [](auto... arguments) {
    HWY_DYNAMIC_DISPATCH(exp_of)(arguments...);
  });
  expect_same_bits("ExpOrZero", -kMax, 0.0f, numerics::exp_or_zero, [](auto... arguments) {
    HWY_DYNAMIC_DISPATCH(exp_or_zero_of)(arguments...);
  });
  expect_same_bits("Sigmoid", -kMax, kMax, numerics::sigmoid, [](auto... arguments) {
    HWY_DYNAMIC_DISPATCH(sigmoid_of)(arguments...);
  });
  expect_same_bits("Log1p", 0.0f, 1.0f, numerics::log1p, [](auto... arguments) {
    HWY_DYNAMIC_DISPATCH(log1p_of)(arguments...);
  });
  expect_same_bits("SqrtSoftplus", -kMax, kMax, numerics::sqrt_softplus, [](auto... arguments) {
    HWY_DYNAMIC_DISPATCH(sqrt_softplus_of)(arguments...);
  });
}

TEST(VectorNumerics, TheShortFormsEqualTheScalarOnesWhereResultsAreNormal) {
  expect_same_bits("ExpNormal", kLowestNormal, 0.0f, numerics::exp, [](auto... arguments) {
    HWY_DYNAMIC_DISPATCH(exp_normal_of)(arguments...);
  });
  expect_same_bits("SigmoidNormal", kLowestNormal, kMax, numerics::sigmoid, [](auto... arguments) {
    HWY_DYNAMIC_DISPATCH(sigmoid_normal_of)(arguments...);
  });
  expect_same_bits("SqrtSoftplusNormal", kLowestNormal, kMax, numerics::sqrt_softplus,
                   [](auto... arguments) {
                     HWY_DYNAMIC_DISPATCH(sqrt_softplus_normal_of)(arguments...);
                   });
}

}  // namespace
}  // namespace switchyard::test
#endif

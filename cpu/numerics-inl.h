// Vector forms of switchyard/numerics.h: the same operations in the same order, lane by lane.

// Per-target include guard
#if defined(SWITCHYARD_CPU_NUMERICS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_NUMERICS_INL_H_
#undef SWITCHYARD_CPU_NUMERICS_INL_H_
#else
#define SWITCHYARD_CPU_NUMERICS_INL_H_
#endif

#include <cmath>

#include "hwy/highway.h"
#include "switchyard/numerics.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Highway's MulAdd rounds twice where the target has no fused form; the contract wants one.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V FusedMulAdd(D d, V a, V b, V c) {
#if HWY_NATIVE_FMA
  (void)d;
  return hn::MulAdd(a, b, c);
#else
  HWY_ALIGN float pa[hn::MaxLanes(D())], pb[hn::MaxLanes(D())], pc[hn::MaxLanes(D())];
  hn::Store(a, d, pa);
  hn::Store(b, d, pb);
  hn::Store(c, d, pc);
  for (size_t i = 0; i < hn::Lanes(d); ++i) pa[i] = std::fma(pa[i], pb[i], pc[i]);
  return hn::Load(d, pa);
#endif
}

// What exp() leaves to its two ways of scaling: 2^f, n as a float, and n in the low bits of
// `biased`.
template <class V>
struct ExpParts {
  V p;
  V n;
  V biased;
};

template <class D, class V = hn::Vec<D>>
HWY_INLINE ExpParts<V> SplitExp(D d, V x) {
  using C = numerics::ExpConstants;
  const V log2e = hn::Set(d, C::kLog2E);
  const V bias = hn::Set(d, C::kRoundingBias);
  const V biased = FusedMulAdd(d, x, log2e, bias);
  const V n = hn::Sub(biased, bias);
#if HWY_NATIVE_FMA
  V f = hn::MulSub(x, log2e, n);
#else
  V f = FusedMulAdd(d, x, log2e, hn::Neg(n));
#endif
  f = FusedMulAdd(d, x, hn::Set(d, C::kLog2ERest), f);
  V p = hn::Set(d, C::kPoly[6]);
  for (int i = 5; i >= 0; --i) p = FusedMulAdd(d, p, f, hn::Set(d, C::kPoly[i]));
  return {p, n, biased};
}

// exp(x) for x in [kLowestNormal, 0]: the result is normal, so adding n to the exponent is exact.
// Lanes outside that range hold garbage, never a subnormal operand.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpNormal(D d, V x) {
  const hn::RebindToSigned<D> di;
  const auto parts = SplitExp(d, x);
  return hn::BitCast(
      d, hn::Add(hn::BitCast(di, parts.p), hn::ShiftLeft<23>(hn::BitCast(di, parts.biased))));
}

// exp_or_zero(x) for x <= 0, -inf included.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V ExpOrZero(D d, V x) {
  const V lowest = hn::Set(d, numerics::ExpConstants::kLowestNormal);
  return hn::IfThenElseZero(hn::Ge(x, lowest), ExpNormal(d, hn::Max(x, lowest)));
}

// exp(x) for any x that is not NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Exp(D d, V x) {
  using C = numerics::ExpConstants;
  const hn::RebindToSigned<D> di;
  x = hn::Min(x, hn::Set(d, C::kHighest));
  x = hn::Max(x, hn::Set(d, C::kLowest));
  const auto parts = SplitExp(d, x);
  const auto exponent = hn::ConvertTo(di, parts.n);
  const auto half = hn::ShiftRight<1>(exponent);
  const auto bias = hn::Set(di, 127);
  const V first = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(half, bias)));
  const V second = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(hn::Sub(exponent, half), bias)));
  return hn::Mul(hn::Mul(parts.p, first), second);
}

// Sigmoid of x, from e = exp(-|x|).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V SigmoidFromExp(D d, V x, V e) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V Sigmoid(D d, V x) {
  return SigmoidFromExp(d, x, Exp(d, hn::Neg(hn::Abs(x))));
}

// Sigmoid for x >= kLowestNormal, +inf included; lanes below hold garbage.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V SigmoidNormal(D d, V x) {
  const V lowest = hn::Set(d, numerics::ExpConstants::kLowestNormal);
  // Where the clamp bites, 1 + e is 1 either way.
  return SigmoidFromExp(d, x, ExpNormal(d, hn::Max(hn::Neg(hn::Abs(x)), lowest)));
}

// Sigmoid for |x| <= -kLowestNormal; other lanes hold garbage.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V SigmoidModest(D d, V x) {
  return SigmoidFromExp(d, x, ExpNormal(d, hn::Or(x, hn::SignBit(d))));
}

// log1p(t) for t in [0, 1].
template <class D, class V = hn::Vec<D>>
HWY_INLINE V Log1p(D d, V t) {
  using C = numerics::Log1pConstants;
  const V z = hn::Div(t, hn::Add(hn::Set(d, 2.0f), t));
  const V z2 = hn::Mul(z, z);
  V p = hn::Set(d, C::kPoly[5]);
  for (int i = 4; i >= 0; --i) p = FusedMulAdd(d, p, z2, hn::Set(d, C::kPoly[i]));
  return hn::Mul(hn::Add(z, z), p);
}

// SqrtSoftplus of x, from e = exp(-|x|).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V SqrtSoftplusFromExp(D d, V x, V e) {
  return hn::Sqrt(hn::Add(hn::Max(x, hn::Zero(d)), Log1p(d, e)));
}

template <class D, class V = hn::Vec<D>>
HWY_INLINE V SqrtSoftplus(D d, V x) {
  return SqrtSoftplusFromExp(d, x, Exp(d, hn::Neg(hn::Abs(x))));
}

// SqrtSoftplus for x >= kLowestNormal; lanes below hold garbage.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V SqrtSoftplusNormal(D d, V x) {
  const V lowest = hn::Set(d, numerics::ExpConstants::kLowestNormal);
  return SqrtSoftplusFromExp(d, x, ExpNormal(d, hn::Max(hn::Neg(hn::Abs(x)), lowest)));
}

// SqrtSoftplus for |x| <= -kLowestNormal; other lanes hold garbage.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V SqrtSoftplusModest(D d, V x) {
  return SqrtSoftplusFromExp(d, x, ExpNormal(d, hn::Or(x, hn::SignBit(d))));
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

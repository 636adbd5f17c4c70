// Gate weights of a block of rows, one row a lane.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_WEIGHTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_WEIGHTS_INL_H_
#undef SWITCHYARD_CPU_BLOCK_WEIGHTS_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_WEIGHTS_INL_H_
#endif

#include <bit>

#include "cpu/block_choice-inl.h"
#include "cpu/block_transpose-inl.h"
#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The contract's sum of `count` vectors, at most kMost, lane by lane.
template <size_t kMost>
HWY_INLINE FloatVec FoldedSumOfVectors(const FloatVec* terms, size_t count) {
  constexpr size_t kLeaves = std::bit_ceil(kMost);
  FloatVec sums[kLeaves];
  for (size_t i = 0; i < kLeaves; ++i) {
    // Adding zero to what is not below it changes no bit, so a tree may be larger than it need be.
    sums[i] = i < kMost && i < count ? terms[i] : hn::Zero(FloatTag());
  }
  for (size_t half = kLeaves / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) sums[i] = hn::Add(sums[i], sums[i + half]);
  }
  return sums[0];
}

// Divides by `total` and scales; zero where the total is zero or not finite.
template <size_t kMost>
HWY_INLINE void DivideAndScale(FloatVec total, float scale, size_t count, FloatVec* weights) {
  const FloatTag d;
  const auto divisible = hn::And(hn::Ne(total, hn::Zero(d)), IsFiniteMask(total));
  for (size_t j = 0; j < kMost && j < count; ++j) {
    weights[j] = hn::IfThenElseZero(divisible, hn::Div(weights[j], total));
  }
  if (scale == 1.0f) return;
  for (size_t j = 0; j < kMost && j < count; ++j) {
    weights[j] = hn::Mul(weights[j], hn::Set(d, scale));
  }
}

// Denominators of the softmax over whole rows, one row a lane.
template <typename T>
HWY_INLINE FloatVec RowDenominators(const BlockScores<T>& logits, size_t num_experts,
                                    FloatVec max) {
  const FloatTag d;
  HWY_ALIGN float maxima[kLanes];
  HWY_ALIGN float sums[kLanes * kLanes];
  hn::Store(max, d, maxima);
  for (size_t row = 0; row < kLanes; ++row) {
    hn::Store(ExpSumLanes(logits.row(row), num_experts, maxima[row]), d, sums + row * kLanes);
  }
  FloatVec columns[kLanes];
  for (size_t c = 0; c < kLanes; c += 4) LoadColumns(sums + c, kLanes, columns + c);
  for (size_t half = kLanes / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) columns[i] = hn::Add(columns[i], columns[i + half]);
  }
  return columns[0];
}

// The same of short rows in place, which need not fill whole vectors. By value, for what a function
// is handed by reference lies in memory.
template <typename T>
HWY_NOINLINE FloatVec LaneDenominators(BlockScores<T> logits, FloatVec max) {
  const FloatTag d;
  HWY_ALIGN float terms[kMaxLaneDenominators * kLanes];
  constexpr size_t kColumns = kColumnsPerLoad<T>;
  for (size_t next = 0; next < logits.size; next += kColumns) {
    // The last load may overlap the one before it.
    const size_t begin = HWY_MIN(next, logits.size - kColumns);
    FloatVec columns[kColumns];
    LoadColumns(logits.data + begin, logits.stride, columns);
    for (size_t i = 0; i < kColumns; ++i) {
      hn::Store(ExpOrZero(d, hn::Sub(columns[i], max)), d, terms + (begin + i) * kLanes);
    }
  }
  size_t count = logits.size;
  for (size_t half = std::bit_ceil(count) / 2; half > 0; half /= 2) {
    for (size_t i = 0; i + half < count; ++i) {
      float* p = terms + i * kLanes;
      hn::Store(hn::Add(hn::Load(d, p), hn::Load(d, p + half * kLanes)), d, p);
    }
    count = HWY_MIN(count, half);
  }
  return hn::Load(d, terms);
}

// Softmax weights of `count` chosen logits, at most kMost, sorted; `denominator` is null to
// renormalise.
template <size_t kMost>
HWY_INLINE void WeighBySoftmax(const RouterConfig& config, const FloatVec* logits, size_t count,
                               const FloatVec* denominator, FloatVec* weights) {
  const FloatTag d;
  const FloatVec max = logits[0];
  const FloatVec lowest = hn::Set(d, numerics::ExpConstants::kLowestNormal);
  weights[0] = hn::Set(d, 1.0f);
  FloatVec last = max;
  for (size_t j = 1; j < kMost && j < count; ++j) last = logits[j];
  // The last is the least, so it tells whether any exponential leaves the normal range.
  if (HWY_LIKELY(hn::AllTrue(d, hn::Ge(hn::Sub(last, max), lowest)))) {
    for (size_t j = 1; j < kMost && j < count; ++j) {
      weights[j] = ExpNormal(d, hn::Sub(logits[j], max));
    }
  } else {
    for (size_t j = 1; j < kMost && j < count; ++j) weights[j] = Exp(d, hn::Sub(logits[j], max));
  }
  const FloatVec total =
      denominator != nullptr ? *denominator : FoldedSumOfVectors<kMost>(weights, count);
  DivideAndScale<kMost>(total, config.routed_scaling_factor, count, weights);
}

// Weights of `count` scores without bias, at most kMost.
template <size_t kMost>
HWY_INLINE void WeighByScores(const RouterConfig& config, size_t count, FloatVec* scores) {
  const FloatTag d;
  const FloatVec total =
      config.renormalize ? FoldedSumOfVectors<kMost>(scores, count) : hn::Set(d, 1.0f);
  DivideAndScale<kMost>(total, config.routed_scaling_factor, count, scores);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

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

// The contract's sum of `count` vectors, lane by lane.
HWY_INLINE FloatVec FoldedSumOfVectors(const FloatVec* terms, size_t count) {
  FloatVec sums[kMaxBlockTopK];
  for (size_t i = 0; i < count; ++i) sums[i] = terms[i];
  for (size_t half = std::bit_ceil(count) / 2; half > 0; half /= 2) {
    for (size_t i = 0; i + half < count; ++i) sums[i] = hn::Add(sums[i], sums[i + half]);
    count = HWY_MIN(count, half);
  }
  return sums[0];
}

// Divides by `total` and scales; zero where the total is zero or not finite.
HWY_INLINE void DivideAndScale(FloatVec total, float scale, size_t count, FloatVec* weights) {
  const FloatTag d;
  const auto divisible = hn::And(hn::Ne(total, hn::Zero(d)), IsFiniteMask(total));
  for (size_t j = 0; j < count; ++j) {
    const FloatVec share = hn::IfThenElseZero(divisible, hn::Div(weights[j], total));
    weights[j] = scale == 1.0f ? share : hn::Mul(share, hn::Set(d, scale));
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

// The same of short rows in place, which need not fill whole vectors.
template <typename T>
HWY_NOINLINE FloatVec LaneDenominators(const BlockScores<T>& logits, FloatVec max) {
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

// Softmax weights of chosen logits, sorted; `denominator` is null to renormalise.
HWY_INLINE void WeighBySoftmax(const RouterConfig& config, const FloatVec* logits, size_t count,
                               const FloatVec* denominator, FloatVec* weights) {
  const FloatTag d;
  const FloatVec max = logits[0];
  const FloatVec lowest = hn::Set(d, numerics::ExpConstants::kLowestNormal);
  weights[0] = hn::Set(d, 1.0f);
  // The last is the least, so it tells whether any exponential leaves the normal range.
  if (HWY_LIKELY(hn::AllTrue(d, hn::Ge(hn::Sub(logits[count - 1], max), lowest)))) {
    for (size_t j = 1; j < count; ++j) weights[j] = ExpNormal(d, hn::Sub(logits[j], max));
  } else {
    for (size_t j = 1; j < count; ++j) weights[j] = Exp(d, hn::Sub(logits[j], max));
  }
  const FloatVec total = denominator != nullptr ? *denominator : FoldedSumOfVectors(weights, count);
  DivideAndScale(total, config.routed_scaling_factor, count, weights);
}

// Weights of scores without bias.
HWY_INLINE void WeighByScores(const RouterConfig& config, size_t count, FloatVec* scores) {
  const FloatTag d;
  const FloatVec total = config.renormalize ? FoldedSumOfVectors(scores, count) : hn::Set(d, 1.0f);
  DivideAndScale(total, config.routed_scaling_factor, count, scores);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

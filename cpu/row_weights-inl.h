// The weights of the experts that a row has chosen.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_WEIGHTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_WEIGHTS_INL_H_
#undef SWITCHYARD_CPU_ROW_WEIGHTS_INL_H_
#else
#define SWITCHYARD_CPU_ROW_WEIGHTS_INL_H_
#endif

#include <bit>
#include <cmath>

#include "cpu/row_scores-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Divides terms[0, count) by their total, or by `denominator` where that is not zero, scales them
// and zeroes the rest up to `padded`. A total of zero or infinity leaves zeros.
HWY_INLINE void NormalizeTerms(const RouterConfig& config, float denominator, size_t count,
                               float* HWY_RESTRICT terms) {
  const FloatTag d;
  float total = denominator;
  if (config.renormalize && count <= 8) {
    float folded[8];
    for (size_t i = 0; i < 8; ++i) folded[i] = i < count ? terms[i] : 0.0f;
    total = FoldEight(folded);
  } else if (config.renormalize) {
    HWY_ALIGN float folded[kMaxTopK];
    const size_t leaves = std::bit_ceil(count);
    for (size_t i = 0; i < count; ++i) folded[i] = terms[i];
    for (size_t i = count; i < leaves; ++i) folded[i] = 0.0f;
    total = FoldedSum(folded, leaves);
  }
  if (total == 0.0f || !std::isfinite(total)) {
    for (size_t i = 0; i < count; ++i) terms[i] = 0.0f;
    return;
  }
  const FloatVec divisor = hn::Set(d, total);
  const FloatVec scale = hn::Set(d, config.routed_scaling_factor);
  for (size_t i = 0; i < count; i += kLanes) {
    hn::Store(hn::Mul(hn::Div(hn::Load(d, terms + i), divisor), scale), d, terms + i);
  }
}

// Weights of chosen[0, count), in terms; arrays are padded to whole vectors.
HWY_INLINE void WeighChosen(const RouterConfig& config, const float* HWY_RESTRICT logits,
                            const float* HWY_RESTRICT scores, const int32_t* HWY_RESTRICT chosen,
                            size_t count, RowSums& sums, float* HWY_RESTRICT terms) {
  const FloatTag d;
  if (config.score_function != ScoreFunction::kSoftmax) {
    for (size_t i = 0; i < count; ++i) terms[i] = scores[chosen[i]];
    return NormalizeTerms(config, 1.0f, count, terms);
  }
  float reference = sums.max;
  if (config.renormalize) reference = kMinusInfinity;
  for (size_t i = 0; i < count; ++i) {
    terms[i] = logits[chosen[i]];
    if (config.renormalize) reference = HWY_MAX(reference, terms[i]);
  }
  for (size_t i = 0; i < count; i += kLanes) {
    hn::Store(Exp(d, hn::Sub(hn::Load(d, terms + i), hn::Set(d, reference))), d, terms + i);
  }
  NormalizeTerms(config, config.renormalize ? 0.0f : Denominator(config, logits, sums), count,
                 terms);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

// The scores of a row, and those that decide its choice.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_SCORES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_SCORES_INL_H_
#undef SWITCHYARD_CPU_ROW_SCORES_INL_H_
#else
#define SWITCHYARD_CPU_ROW_SCORES_INL_H_
#endif

#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/row_groups-inl.h"
#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What a row's losses and weights need besides its clean logits.
struct RowSums {
  float max = 0.0f;
  float denominator = 0.0f;  // 0: not computed yet
};

HWY_INLINE float Denominator(const RouterConfig& config, const float* logits, RowSums& sums) {
  if (sums.denominator == 0.0f) {
    const auto num_experts = static_cast<size_t>(config.num_experts);
    sums.denominator = FoldLanes(ExpSumLanes(logits, num_experts, sums.max));
  }
  return sums.denominator;
}

// What a preference lifts residents by; `spread` tells the greatest less the least of the row's
// finite scores where that is asked for.
template <typename Spread>
HWY_INLINE float Bonus(const ResidencyPreference& preference, const Spread& spread) {
  if (preference.bonus_scale == BonusScale::kAbsolute || std::isinf(preference.bonus)) {
    return preference.bonus;
  }
  return preference.bonus * spread();
}

// A bound on what a preference may cost: a share of an amount; infinite where there is none.
HWY_INLINE float Limit(float factor, float amount) {
  return std::isinf(factor) ? factor : factor * amount;
}

// Scores of a clean row; -inf where the logit is. Returns the least finite logit, or 0 when none is
// negative.
template <ScoreFunction kFunction, bool kNormal>
HWY_INLINE float ScoreRow(const float* HWY_RESTRICT logits, size_t padded,
                          float* HWY_RESTRICT scores) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  FloatVec least = hn::Zero(d);
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec logit = hn::Load(d, logits + i);
    const auto absent = hn::Eq(logit, lowest);
    least = hn::Min(least, hn::IfThenZeroElse(absent, logit));
    const FloatVec score = Score<kNormal>(kFunction, logit);
    hn::Store(hn::IfThenElse(absent, lowest, score), d, scores + i);
  }
  return -GreatestLane(hn::Neg(least));
}

template <ScoreFunction kFunction>
HWY_INLINE void ScoreRow(const float* logits, size_t padded, float* scores) {
  const float least = ScoreRow<kFunction, true>(logits, padded, scores);
  if (HWY_UNLIKELY(least < numerics::ExpConstants::kLowestNormal)) {
    ScoreRow<kFunction, false>(logits, padded, scores);
  }
}

// Probabilities of a clean row; -inf where the logit is.
HWY_INLINE void SoftmaxRow(const float* HWY_RESTRICT logits, size_t padded, float max,
                           float denominator, float* HWY_RESTRICT scores) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec logit = hn::Load(d, logits + i);
    const FloatVec term = ExpOrZero(d, hn::Sub(logit, hn::Set(d, max)));
    const FloatVec score = hn::Div(term, hn::Set(d, denominator));
    hn::Store(hn::IfThenElse(hn::Eq(logit, lowest), lowest, score), d, scores + i);
  }
}

// Scores of a clean row (softmax: probabilities); -inf where the logit is.
HWY_INLINE void ScoreRow(const RouterConfig& config, const float* HWY_RESTRICT logits,
                         RowSums& sums, float* HWY_RESTRICT scores) {
  const size_t padded = PaddedSize(static_cast<size_t>(config.num_experts));
  switch (config.score_function) {
    case ScoreFunction::kSoftmax:
      return SoftmaxRow(logits, padded, sums.max, Denominator(config, logits, sums), scores);
    case ScoreFunction::kSigmoid:
      return ScoreRow<ScoreFunction::kSigmoid>(logits, padded, scores);
    case ScoreFunction::kSqrtSoftplus:
      return ScoreRow<ScoreFunction::kSqrtSoftplus>(logits, padded, scores);
    case ScoreFunction::kIdentity:
      return ScoreRow<ScoreFunction::kIdentity>(logits, padded, scores);
  }
}

// The scores that decide the choice: scores plus bias, -inf where that is not finite.
HWY_INLINE void AddBias(const float* HWY_RESTRICT scores, const float* HWY_RESTRICT bias,
                        size_t num_experts, float* HWY_RESTRICT selection) {
  const size_t padded = PaddedSize(num_experts);
  for (size_t i = 0; i < num_experts; ++i) selection[i] = scores[i] + bias[i];
  for (size_t i = num_experts; i < padded; ++i) selection[i] = kMinusInfinity;
  CleanRow(selection, padded);
}

// A row as the choice and the weights need it; padded.
struct RowView {
  const float* logits;     // no NaN and no +inf; -inf: never chosen
  const float* scores;     // where `chosen_by` or the losses need them
  const float* chosen_by;  // what decides the choice; -inf: never chosen
  RowSums sums;
};

// Memory for a row.
struct RowScratch {
  HWY_ALIGN float logits[kMaxExperts];
  HWY_ALIGN float scores[kMaxExperts];
  HWY_ALIGN float selection[kMaxExperts];
};

// Cleans and scores a row. Returns false, and no scores, when it has no finite enabled logit.
HWY_INLINE bool ScoreRowForChoice(const RouteTask& task, int64_t token, bool with_losses,
                                  RowScratch& scratch, RowView& row) {
  const RouterConfig& config = task.config;
  const auto num_experts = static_cast<size_t>(config.num_experts);
  const size_t padded = PaddedSize(num_experts);
  WidenRow(task, token, scratch.logits);
  row.sums = {.max = CleanRow(scratch.logits, padded)};
  if (row.sums.max == kMinusInfinity) return false;

  const bool on_logits = selects_on_logits(config, task.bias != nullptr);
  if (!on_logits || with_losses) ScoreRow(config, scratch.logits, row.sums, scratch.scores);
  row.logits = scratch.logits;
  row.scores = scratch.scores;
  row.chosen_by = on_logits ? scratch.logits : scratch.scores;
  if (task.bias != nullptr) {
    AddBias(scratch.scores, task.bias, num_experts, scratch.selection);
    row.chosen_by = scratch.selection;
  }
  if (config.num_groups != config.top_groups) {
    if (row.chosen_by != scratch.selection) {
      std::memcpy(scratch.selection, row.chosen_by, padded * sizeof(float));
    }
    LimitToBestGroups(config, scratch.selection);
    row.chosen_by = scratch.selection;
  }
  return true;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

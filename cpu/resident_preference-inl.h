// Lets resident experts take the place of others that a row has chosen.

// Per-target include guard
#if defined(SWITCHYARD_CPU_RESIDENT_PREFERENCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_RESIDENT_PREFERENCE_INL_H_
#undef SWITCHYARD_CPU_RESIDENT_PREFERENCE_INL_H_
#else
#define SWITCHYARD_CPU_RESIDENT_PREFERENCE_INL_H_
#endif

#include <bit>
#include <cmath>

#include "cpu/row_scores-inl.h"
#include "cpu/row_weights-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The slots whose experts may give way, the weakest first.
struct AbsentSlots {
  size_t count = 0;
  uint8_t slots[kMaxTopK];
};

HWY_INLINE AbsentSlots FindAbsentSlots(const RouteTask& task, const int32_t* HWY_RESTRICT ids) {
  AbsentSlots absent;
  for (int32_t slot = task.config.top_k - 1; slot >= task.residency->num_protected; --slot) {
    absent.slots[absent.count] = static_cast<uint8_t>(slot);
    absent.count += task.residency->resident_experts[ids[slot]] == 0 ? 1 : 0;
  }
  return absent;
}

// The resident experts that a row has not chosen, by their selection scores.
class OtherResidents {
 public:
  OtherResidents(const RouteTask& task, const float* HWY_RESTRICT selection,
                 const int32_t* HWY_RESTRICT ids)
      : padded_(PaddedSize(static_cast<size_t>(task.config.num_experts))) {
    const FloatTag d;
    const IntTag di;
    const hn::Rebind<uint8_t, IntTag> d8;
    const auto num_experts = static_cast<size_t>(task.config.num_experts);
    const uint8_t* const resident = task.residency->resident_experts.data;
    size_t i = 0;
    for (; i + kLanes <= num_experts; i += kLanes) {
      const IntVec flags = hn::PromoteTo(di, hn::LoadU(d8, resident + i));
      const auto absent = hn::RebindMask(d, hn::Eq(flags, hn::Zero(di)));
      const FloatVec scores = hn::LoadU(d, selection + i);
      hn::Store(hn::IfThenElse(absent, hn::Set(d, kMinusInfinity), scores), d, scores_ + i);
    }
    for (; i < num_experts; ++i) {
      scores_[i] = resident[i] != 0 ? selection[i] : kMinusInfinity;
    }
    for (; i < padded_; ++i) scores_[i] = kMinusInfinity;
    for (int32_t slot = 0; slot < task.config.top_k; ++slot) scores_[ids[slot]] = kMinusInfinity;
  }

  // Takes out the best one, of equal ones the first; -1 where none is left.
  HWY_INLINE int32_t TakeBest() {
    const FloatTag d;
    FloatVec even = hn::Load(d, scores_);
    FloatVec odd = even;
    size_t i = kLanes;
    for (; i + 2 * kLanes <= padded_; i += 2 * kLanes) {
      even = hn::Max(even, hn::Load(d, scores_ + i));
      odd = hn::Max(odd, hn::Load(d, scores_ + i + kLanes));
    }
    if (i < padded_) even = hn::Max(even, hn::Load(d, scores_ + i));
    const float best = GreatestLane(hn::Max(even, odd));
    if (best == kMinusInfinity) return -1;
    for (i = 0;; i += kLanes) {
      const auto here = hn::Eq(hn::Load(d, scores_ + i), hn::Set(d, best));
      if (hn::AllFalse(d, here)) continue;
      const size_t expert = i + static_cast<size_t>(hn::FindFirstTrue(d, here));
      scores_[expert] = kMinusInfinity;
      return static_cast<int32_t>(expert);
    }
  }

 private:
  const size_t padded_;
  HWY_ALIGN float scores_[kMaxExperts];
};

// The greatest less the least of the scores above -inf.
HWY_INLINE float SpreadOf(const float* HWY_RESTRICT selection, size_t padded) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  FloatVec greatest = lowest;
  FloatVec least_negated = lowest;
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec x = hn::LoadU(d, selection + i);
    greatest = hn::Max(greatest, x);
    const FloatVec negated = hn::IfThenElse(hn::Eq(x, lowest), lowest, hn::Neg(x));
    least_negated = hn::Max(least_negated, negated);
  }
  return GreatestLane(greatest) + GreatestLane(least_negated);
}

HWY_INLINE float BonusOf(const ResidencyPreference& preference, const RowView& row, size_t padded) {
  if (preference.bonus_scale == BonusScale::kAbsolute || std::isinf(preference.bonus)) {
    return preference.bonus;
  }
  return preference.bonus * SpreadOf(row.chosen_by, padded);
}

// What an expert adds to the mass of a choice, in units of the row's denominator.
HWY_INLINE float MassOf(const RouterConfig& config, const RowView& row, int32_t expert) {
  if (config.score_function != ScoreFunction::kSoftmax) return row.scores[expert];
  return numerics::exp_or_zero(row.logits[expert] - row.sums.max);
}

HWY_INLINE float MassOfChoice(const RouterConfig& config, const RowView& row,
                              const int32_t* HWY_RESTRICT ids) {
  HWY_ALIGN float terms[kMaxTopK];
  const auto top_k = static_cast<size_t>(config.top_k);
  const size_t leaves = std::bit_ceil(top_k);
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  const float* const values = softmax ? row.logits : row.scores;
  for (size_t i = 0; i < leaves; ++i) terms[i] = i < top_k ? values[ids[i]] : kMinusInfinity;
  if (softmax) {
    const FloatTag d;
    const FloatVec max = hn::Set(d, row.sums.max);
    for (size_t i = leaves; i < kLanes; ++i) terms[i] = kMinusInfinity;
    for (size_t i = 0; i < leaves; i += kLanes) {
      hn::Store(ExpOrZero(d, hn::Sub(hn::Load(d, terms + i), max)), d, terms + i);
    }
  } else {
    for (size_t i = top_k; i < leaves; ++i) terms[i] = 0.0f;
  }
  return FoldedSum(terms, leaves);
}

HWY_INLINE float Limit(float factor, float amount) {
  return std::isinf(factor) ? factor : factor * amount;
}

// Whose places are taken, and what that costs in units of the denominator.
struct Swaps {
  size_t count = 0;
  float loss = 0.0f;
  int32_t entrants[kMaxTopK];
};

HWY_INLINE void FindSwaps(const RouteTask& task, RowView& row, const int32_t* HWY_RESTRICT ids,
                          const AbsentSlots& absent, Swaps& swaps) {
  const RouterConfig& config = task.config;
  const ResidencyPreference& preference = *task.residency;
  const size_t padded = PaddedSize(static_cast<size_t>(config.num_experts));
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  OtherResidents residents(task, row.chosen_by, ids);
  float bonus = 0.0f;
  float share_limit = 0.0f;
  float swap_limit = 0.0f;
  for (size_t pair = 0; pair < absent.count; ++pair) {
    const int32_t entrant = residents.TakeBest();
    if (entrant < 0) return;
    if (pair == 0) bonus = BonusOf(preference, row, padded);
    const int32_t leaving = ids[absent.slots[pair]];
    const float lifted = row.chosen_by[entrant] + bonus;
    const float rival = row.chosen_by[leaving];
    if (!(lifted > rival || (lifted == rival && entrant < leaving))) return;
    if (pair == 0) {
      share_limit = Limit(preference.max_sacrificed_share, MassOfChoice(config, row, ids));
      // No probability is above 1, so a larger bound needs no denominator.
      const bool is_free = softmax && preference.max_swap_loss >= 1.0f;
      const float whole = softmax && !is_free ? Denominator(config, row.logits, row.sums) : 1.0f;
      swap_limit = Limit(preference.max_swap_loss, whole);
    }
    const float loss = MassOf(config, row, leaving) - MassOf(config, row, entrant);
    if (!(loss <= swap_limit) || !(swaps.loss + loss <= share_limit)) return;
    swaps.loss += loss;
    swaps.entrants[swaps.count++] = entrant;
  }
}

// The choices that stay, then those that came.
HWY_INLINE void ExchangeChoices(const AbsentSlots& absent, size_t count, size_t top_k,
                                const int32_t* HWY_RESTRICT entrants, int32_t* HWY_RESTRICT ids) {
  uint64_t leaving = 0;
  for (size_t i = 0; i < count; ++i) leaving |= uint64_t{1} << absent.slots[i];
  size_t place = 0;
  for (size_t slot = 0; slot < top_k; ++slot) {
    if ((leaving >> slot & 1) == 0) ids[place++] = ids[slot];
  }
  for (size_t i = 0; i < count; ++i) ids[place++] = entrants[i];
}

// Whether all of a padded row is below +inf and its first choice above -inf; NaN is neither.
HWY_INLINE bool IsOrdinaryRow(const float* HWY_RESTRICT row, size_t padded, int32_t best) {
  const FloatTag d;
  const FloatVec infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  auto below = hn::Lt(hn::LoadU(d, row), infinity);
  for (size_t i = kLanes; i < padded; i += kLanes) {
    below = hn::And(below, hn::Lt(hn::LoadU(d, row + i), infinity));
  }
  return hn::AllTrue(d, below) && row[best] > kMinusInfinity;
}

// A row that was chosen on its logits, as it is. Returns false where it needs cleaning.
HWY_INLINE bool ViewLogits(const RouteTask& task, int64_t token, int32_t best, RowScratch& scratch,
                           RowView& row) {
  const auto num_experts = static_cast<size_t>(task.config.num_experts);
  const size_t padded = PaddedSize(num_experts);
  row.logits = scratch.logits;
  if (task.logits.dtype == DataType::kFloat32 && task.expert_mask == nullptr &&
      num_experts == padded) {
    row.logits = task.logits.as<float>().row(token);
  } else {
    WidenRow(task, token, scratch.logits);
  }
  if (!IsOrdinaryRow(row.logits, padded, best)) return false;
  row.scores = nullptr;
  row.chosen_by = row.logits;
  row.sums = {.max = row.logits[best]};
  return true;
}

// For a routed row. Returns the mass that it gave up.
HWY_NOINLINE float PreferResidentsInRow(const RouteTask& task, int64_t token,
                                        const AbsentSlots& absent) {
  const RouterConfig& config = task.config;
  const auto top_k = static_cast<size_t>(config.top_k);
  int32_t* const ids = task.expert_ids.row(token);
  RowScratch scratch;
  RowView row;
  const bool is_viewed = selects_on_logits(config, task.bias != nullptr) &&
                         config.num_groups == config.top_groups &&
                         ViewLogits(task, token, ids[0], scratch, row);
  if (!is_viewed && !ScoreRowForChoice(task, token, false, scratch, row)) return 0.0f;

  Swaps swaps;
  FindSwaps(task, row, ids, absent, swaps);
  if (swaps.count == 0) return 0.0f;

  ExchangeChoices(absent, swaps.count, top_k, swaps.entrants, ids);
  HWY_ALIGN float terms[kMaxTopK + kLanes];
  WeighChosen(config, row.logits, row.scores, ids, top_k, row.sums, terms);
  for (size_t i = 0; i < top_k; ++i) {
    set_element(task.gate_weights, token, static_cast<int64_t>(i), terms[i]);
  }
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  if (!softmax || task.sacrificed_mass == nullptr) return swaps.loss;
  return swaps.loss / Denominator(config, row.logits, row.sums);
}

// Of the routed tokens [begin, end).
HWY_INLINE void PreferResidents(const RouteTask& task, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    float sacrificed = 0.0f;
    if (task.token_mask == nullptr || task.token_mask[token] != 0) {
      const AbsentSlots absent = FindAbsentSlots(task, task.expert_ids.row(token));
      if (absent.count > 0) sacrificed = PreferResidentsInRow(task, token, absent);
    }
    if (task.sacrificed_mass != nullptr) task.sacrificed_mass[token] = sacrificed;
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

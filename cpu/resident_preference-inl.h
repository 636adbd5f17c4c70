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
#include "cpu/row_selection-inl.h"
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

// The selection scores of resident experts that are not chosen, -inf for all others.
HWY_INLINE void KeepOtherResidents(const RouteTask& task, const float* HWY_RESTRICT selection,
                                   const int32_t* HWY_RESTRICT ids, float* HWY_RESTRICT others) {
  const FloatTag d;
  const IntTag di;
  const hn::Rebind<uint8_t, IntTag> d8;
  const auto num_experts = static_cast<size_t>(task.config.num_experts);
  const uint8_t* const resident = task.residency->resident_experts.data;
  size_t i = 0;
  for (; i + kLanes <= num_experts; i += kLanes) {
    const IntVec flags = hn::PromoteTo(di, hn::LoadU(d8, resident + i));
    const auto absent = hn::RebindMask(d, hn::Eq(flags, hn::Zero(di)));
    hn::Store(hn::IfThenElse(absent, hn::Set(d, kMinusInfinity), hn::Load(d, selection + i)), d,
              others + i);
  }
  for (; i < num_experts; ++i) others[i] = resident[i] != 0 ? selection[i] : kMinusInfinity;
  for (; i < PaddedSize(num_experts); ++i) others[i] = kMinusInfinity;
  for (int32_t slot = 0; slot < task.config.top_k; ++slot) others[ids[slot]] = kMinusInfinity;
}

// The greatest less the least of the scores above -inf.
HWY_INLINE float SpreadOf(const float* HWY_RESTRICT selection, size_t padded) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  FloatVec greatest = lowest;
  FloatVec least_negated = lowest;
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec x = hn::Load(d, selection + i);
    greatest = hn::Max(greatest, x);
    const FloatVec negated = hn::IfThenElse(hn::Eq(x, lowest), lowest, hn::Neg(x));
    least_negated = hn::Max(least_negated, negated);
  }
  return GreatestLane(greatest) + GreatestLane(least_negated);
}

HWY_INLINE float BonusOf(const ResidencyPreference& preference, const ScoredRow& row,
                         size_t padded) {
  if (preference.bonus_scale == BonusScale::kAbsolute || std::isinf(preference.bonus)) {
    return preference.bonus;
  }
  return preference.bonus * SpreadOf(row.chosen_by, padded);
}

// What an expert adds to the mass of a choice, in units of the row's denominator.
HWY_INLINE float MassOf(const RouterConfig& config, const ScoredRow& row, int32_t expert) {
  if (config.score_function != ScoreFunction::kSoftmax) return row.scores[expert];
  return numerics::exp_or_zero(row.logits[expert] - row.sums.max);
}

HWY_INLINE float MassOfChoice(const RouterConfig& config, const ScoredRow& row,
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

// How many pairs change places, and what that costs in units of the denominator.
struct Swaps {
  size_t count = 0;
  float loss = 0.0f;
};

HWY_INLINE Swaps CountSwaps(const RouteTask& task, ScoredRow& row, const int32_t* HWY_RESTRICT ids,
                            const AbsentSlots& absent, const int32_t* HWY_RESTRICT entrants,
                            size_t num_pairs) {
  const RouterConfig& config = task.config;
  const ResidencyPreference& preference = *task.residency;
  const size_t padded = PaddedSize(static_cast<size_t>(config.num_experts));
  const float bonus = BonusOf(preference, row, padded);
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  Swaps swaps;
  float share_limit = 0.0f;
  float swap_limit = 0.0f;
  for (size_t pair = 0; pair < num_pairs; ++pair) {
    const int32_t leaving = ids[absent.slots[pair]];
    const int32_t entrant = entrants[pair];
    const float lifted = row.chosen_by[entrant] + bonus;
    const float rival = row.chosen_by[leaving];
    if (!(lifted > rival || (lifted == rival && entrant < leaving))) break;
    if (pair == 0) {
      share_limit = Limit(preference.max_sacrificed_share, MassOfChoice(config, row, ids));
      // No probability is above 1, so a larger bound needs no denominator.
      const bool is_free = softmax && preference.max_swap_loss >= 1.0f;
      const float whole = softmax && !is_free ? Denominator(config, row.logits, row.sums) : 1.0f;
      swap_limit = Limit(preference.max_swap_loss, whole);
    }
    const float loss = MassOf(config, row, leaving) - MassOf(config, row, entrant);
    if (!(loss <= swap_limit) || !(swaps.loss + loss <= share_limit)) break;
    swaps.loss += loss;
    ++swaps.count;
  }
  return swaps;
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

// For a routed row. Returns the mass that it gave up.
HWY_NOINLINE float PreferResidentsInRow(const RouteTask& task, int64_t token,
                                        const AbsentSlots& absent) {
  const RouterConfig& config = task.config;
  const auto top_k = static_cast<size_t>(config.top_k);
  const size_t padded = PaddedSize(static_cast<size_t>(config.num_experts));
  int32_t* const ids = task.expert_ids.row(token);
  ScoredRow row;
  if (!ScoreRowForChoice(task, token, false, row)) return 0.0f;

  HWY_ALIGN float others[kMaxExperts];
  HWY_ALIGN int32_t entrants[kMaxTopK];
  KeepOtherResidents(task, row.chosen_by, ids, others);
  const size_t num_pairs = SelectRow(others, padded, absent.count, entrants);
  const Swaps swaps = CountSwaps(task, row, ids, absent, entrants, num_pairs);
  if (swaps.count == 0) return 0.0f;

  ExchangeChoices(absent, swaps.count, top_k, entrants, ids);
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

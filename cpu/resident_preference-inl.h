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
#include <cstring>

#include "cpu/row_scores-inl.h"
#include "cpu/row_weights-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A set of experts.
struct ExpertBits {
  uint64_t words[kMaxExperts / 64 + 1];  // masks are loaded from whole words

  HWY_INLINE bool Contains(int32_t expert) const {
    return (words[expert / 64] >> (expert % 64) & 1) != 0;
  }
};

static_assert(std::endian::native == std::endian::little, "bits of masks are read as bytes");

// The experts whose flags are not 0.
HWY_INLINE void GatherFlags(const uint8_t* HWY_RESTRICT flags, size_t num_experts,
                            ExpertBits& bits) {
  const hn::CappedTag<uint8_t, 64> d8;
  auto* const bytes = reinterpret_cast<uint8_t*>(bits.words);
  size_t i = 0;
  for (; i + hn::Lanes(d8) <= num_experts; i += hn::Lanes(d8)) {
    hn::StoreMaskBits(d8, hn::Ne(hn::LoadU(d8, flags + i), hn::Zero(d8)), bytes + i / 8);
  }
  // Eight flags at a time: the top bit of every byte that is not 0, then these bits side by side.
  constexpr uint64_t kTops = 0x8080808080808080u;
  for (; i < num_experts; i += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, flags + i, HWY_MIN(num_experts - i, size_t{8}));
    const uint64_t tops = (eight | ((eight & ~kTops) + ~kTops)) & kTops;
    bytes[i / 8] = static_cast<uint8_t>((tops >> 7) * 0x0102040810204080u >> 56);
  }
}

// The slots whose experts may give way, the weakest first.
struct AbsentSlots {
  size_t count = 0;
  uint8_t slots[kMaxTopK];
};

HWY_INLINE void FindAbsentSlots(const RouteTask& task, const ExpertBits& residents,
                                const int32_t* HWY_RESTRICT ids, AbsentSlots& absent) {
  for (int32_t slot = task.config.top_k - 1; slot >= task.residency->num_protected; --slot) {
    absent.slots[absent.count] = static_cast<uint8_t>(slot);
    absent.count += residents.Contains(ids[slot]) ? 0 : 1;
  }
}

// The resident experts that a row has not chosen, by their selection scores.
class OtherResidents {
 public:
  OtherResidents(const RouteTask& task, const ExpertBits& residents,
                 const float* HWY_RESTRICT selection, const int32_t* HWY_RESTRICT ids)
      : num_experts_(static_cast<size_t>(task.config.num_experts)), selection_(selection) {
    if (num_experts_ <= 64) {
      uint64_t chosen = 0;
      for (int32_t slot = 0; slot < task.config.top_k; ++slot) chosen |= uint64_t{1} << ids[slot];
      others_.words[0] = residents.words[0] & ~chosen;
      return;
    }
    for (size_t i = 0; i < num_experts_; i += 64) others_.words[i / 64] = residents.words[i / 64];
    for (int32_t slot = 0; slot < task.config.top_k; ++slot) Remove(ids[slot]);
  }

  // Takes out the best one, of equal ones the first; -1 where none is left.
  HWY_INLINE int32_t TakeBest() {
    const FloatTag d;
    FloatVec best_of_lanes = hn::Set(d, kMinusInfinity);
    for (size_t i = 0; i < num_experts_; i += kLanes) {
      best_of_lanes = hn::Max(
          best_of_lanes,
          hn::IfThenElse(Present(i), hn::LoadU(d, selection_ + i), hn::Set(d, kMinusInfinity)));
    }
    const float best = GreatestLane(best_of_lanes);
    if (best == kMinusInfinity) return -1;
    for (size_t i = 0;; i += kLanes) {
      const auto equal = hn::Eq(hn::LoadU(d, selection_ + i), hn::Set(d, best));
      const auto here = hn::And(equal, Present(i));
      if (hn::AllFalse(d, here)) continue;
      const auto expert =
          static_cast<int32_t>(i) + static_cast<int32_t>(hn::FindFirstTrue(d, here));
      Remove(expert);
      return expert;
    }
  }

 private:
  void Remove(int32_t expert) { others_.words[expert / 64] &= ~(uint64_t{1} << (expert % 64)); }

  HWY_INLINE hn::Mask<FloatTag> Present(size_t i) const {
    const auto* const bytes = reinterpret_cast<const uint8_t*>(others_.words) + i / 8;
    if constexpr (kLanes >= 8) return hn::LoadMaskBits(FloatTag(), bytes);
    const uint8_t bits[8] = {static_cast<uint8_t>(*bytes >> (i % 8))};
    return hn::LoadMaskBits(FloatTag(), bits);
  }

  const size_t num_experts_;
  const float* const selection_;
  ExpertBits others_;
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

// What an expert adds to the mass of a choice, in units of the row's denominator.
HWY_INLINE float MassOf(const RouterConfig& config, const RowView& row, int32_t expert) {
  if (config.score_function != ScoreFunction::kSoftmax) return row.scores[expert];
  return numerics::exp_or_zero(row.logits[expert] - row.sums.max);
}

// The masses of a row's choices, and their sum by the contract's tree.
struct ChoiceMasses {
  HWY_ALIGN float of_slot[kMaxTopK];
  float total;
};

HWY_INLINE void WeighMasses(const RouterConfig& config, const RowView& row,
                            const int32_t* HWY_RESTRICT ids, ChoiceMasses& masses) {
  const auto top_k = static_cast<size_t>(config.top_k);
  const size_t leaves = HWY_MAX(std::bit_ceil(top_k), size_t{8});
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  const float* const values = softmax ? row.logits : row.scores;
  const float absent = softmax ? kMinusInfinity : 0.0f;
  const size_t padded = PaddedSize(leaves);
  for (size_t i = 0; i < padded; ++i) masses.of_slot[i] = i < top_k ? values[ids[i]] : absent;
  if (softmax) {
    const FloatTag d;
    const FloatVec max = hn::Set(d, row.sums.max);
    for (size_t i = 0; i < padded; i += kLanes) {
      const FloatVec logits = hn::Load(d, masses.of_slot + i);
      hn::Store(ExpOrZero(d, hn::Sub(logits, max)), d, masses.of_slot + i);
    }
  }
  if (leaves == 8) {
    masses.total = FoldEight(masses.of_slot);
    return;
  }
  HWY_ALIGN float folded[kMaxTopK];
  std::memcpy(folded, masses.of_slot, leaves * sizeof(float));
  masses.total = FoldedSum(folded, leaves);
}

// Whose places are taken, and what that costs in units of the denominator.
struct Swaps {
  size_t count = 0;
  float loss = 0.0f;
  int32_t entrants[kMaxTopK];
};

HWY_INLINE void FindSwaps(const RouteTask& task, RowView& row, const int32_t* HWY_RESTRICT ids,
                          const ExpertBits& residents, const AbsentSlots& absent, Swaps& swaps) {
  const RouterConfig& config = task.config;
  const ResidencyPreference& preference = *task.residency;
  const size_t padded = PaddedSize(static_cast<size_t>(config.num_experts));
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  OtherResidents others(task, residents, row.chosen_by, ids);
  // Without bounds, a difference of numbers above all or below all others can still be NaN.
  const bool is_weighed = !softmax || task.sacrificed_mass != nullptr ||
                          std::isfinite(preference.max_swap_loss) ||
                          std::isfinite(preference.max_sacrificed_share);
  ChoiceMasses masses;
  float bonus = 0.0f;
  float share_limit = 0.0f;
  float swap_limit = 0.0f;
  for (size_t pair = 0; pair < absent.count; ++pair) {
    const int32_t entrant = others.TakeBest();
    if (entrant < 0) return;
    if (pair == 0) {
      bonus = Bonus(preference, [&]() HWY_ATTR { return SpreadOf(row.chosen_by, padded); });
    }
    const int32_t leaving = ids[absent.slots[pair]];
    const float lifted = row.chosen_by[entrant] + bonus;
    const float rival = row.chosen_by[leaving];
    if (!(lifted > rival || (lifted == rival && entrant < leaving))) return;
    if (is_weighed) {
      if (pair == 0) {
        WeighMasses(config, row, ids, masses);
        share_limit = Limit(preference.max_sacrificed_share, masses.total);
        // No probability is above 1, so a larger bound needs no denominator.
        const bool is_free = softmax && preference.max_swap_loss >= 1.0f;
        const float whole = softmax && !is_free ? Denominator(config, row.logits, row.sums) : 1.0f;
        swap_limit = Limit(preference.max_swap_loss, whole);
      }
      const float difference = masses.of_slot[absent.slots[pair]] - MassOf(config, row, entrant);
      const float loss = difference > 0.0f ? difference : 0.0f;
      if (!(loss <= swap_limit) || !(swaps.loss + loss <= share_limit)) return;
      swaps.loss += loss;
    }
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
                                        const ExpertBits& residents, const AbsentSlots& absent) {
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
  FindSwaps(task, row, ids, residents, absent, swaps);
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
  ExpertBits residents;
  GatherFlags(task.residency->resident_experts.data, static_cast<size_t>(task.config.num_experts),
              residents);
  for (int64_t token = begin; token < end; ++token) {
    float sacrificed = 0.0f;
    if (task.token_mask == nullptr || task.token_mask[token] != 0) {
      AbsentSlots absent;
      FindAbsentSlots(task, residents, task.expert_ids.row(token), absent);
      if (absent.count > 0) sacrificed = PreferResidentsInRow(task, token, residents, absent);
    }
    if (task.sacrificed_mass != nullptr) task.sacrificed_mass[token] = sacrificed;
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

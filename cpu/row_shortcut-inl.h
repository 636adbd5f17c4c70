// One row of logits that the choice is made on, with ordinary values: the way of a single token.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_SHORTCUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_SHORTCUT_INL_H_
#undef SWITCHYARD_CPU_ROW_SHORTCUT_INL_H_
#else
#define SWITCHYARD_CPU_ROW_SHORTCUT_INL_H_
#endif

#include <bit>

#include "cpu/row_inputs-inl.h"
#include "cpu/row_registers-inl.h"
#include "cpu/row_selection-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxShortcutTopK = 16;

// A row's choice and the terms of its weights: e^(x - max), all of them normal numbers, and zeros
// behind them.
struct ShortcutChoice {
  int32_t experts[kMaxShortcutTopK];
  HWY_ALIGN float terms[kMaxShortcutTopK];
  float denominator = 1.0f;  // of the whole row, unless weights are renormalised
};

HWY_INLINE float FoldSixteen(const float* t) {
  float halves[8];
  for (size_t i = 0; i < 8; ++i) halves[i] = t[i] + t[i + 8];
  return FoldEight(halves);
}

// The two best of a row of one vector of D or less, renormalised: two maxima, one exponential.
template <class D>
HWY_INLINE bool ChooseBestTwo(D d, const float* HWY_RESTRICT row, size_t num_experts,
                              ShortcutChoice& choice) {
  using V = hn::Vec<D>;
  const V lowest = hn::Set(d, kMinusInfinity);
  const V x = LoadPadded(d, row, num_experts);
  const auto finite = hn::Lt(hn::Abs(x), hn::Set(d, std::numeric_limits<float>::infinity()));
  if (HWY_UNLIKELY(hn::CountTrue(d, finite) != num_experts)) return false;
  const V best = hn::MaxOfLanes(d, x);
  const auto at_best = hn::Eq(x, best);
  if (HWY_UNLIKELY(hn::CountTrue(d, at_best) != 1)) return false;
  const V rest = hn::IfThenElse(at_best, lowest, x);
  const V second = hn::MaxOfLanes(d, rest);
  const V difference = hn::Sub(second, best);
  if (HWY_UNLIKELY(hn::GetLane(difference) < numerics::ExpConstants::kLowestNormal)) return false;
  choice.experts[0] = static_cast<int32_t>(hn::FindFirstTrue(d, at_best));
  choice.experts[1] = static_cast<int32_t>(hn::FindFirstTrue(d, hn::Eq(rest, second)));
  choice.terms[0] = 1.0f;
  choice.terms[1] = hn::GetLane(ExpNormal(d, difference));
  return true;
}

// Rows of one vector or less. Every place is found by counting who outranks whom, while the
// exponentials of the whole row are under way.
HWY_INLINE bool ChooseTinyRow(const float* HWY_RESTRICT row, size_t num_experts, size_t top_k,
                              bool renormalize, ShortcutChoice& choice) {
  const FloatTag d;
  const IntTag di;
  const FloatVec x = hn::Add(LoadPadded(d, row, num_experts), hn::Zero(d));
  const auto present = hn::FirstN(d, num_experts);
  if (!hn::AllTrue(d, hn::Or(hn::Not(present), IsFiniteMask(x)))) return false;
  const IntVec key = OrderedBits(x);
  HWY_ALIGN int32_t keys[kLanes];
  hn::Store(key, di, keys);

  const FloatVec lowest = hn::Set(d, numerics::ExpConstants::kLowestNormal);
  const FloatVec below_max = hn::Sub(x, hn::MaxOfLanes(d, x));
  if (!hn::AllTrue(d, hn::Or(hn::Not(present), hn::Ge(below_max, lowest)))) return false;
  const FloatVec terms = hn::IfThenElseZero(present, ExpNormal(d, hn::Max(below_max, lowest)));
  HWY_ALIGN float all_terms[kLanes];
  hn::Store(terms, d, all_terms);

  const IntVec position = hn::Iota(di, 0);
  const IntVec one = hn::Set(di, 1);
  IntVec place = hn::Zero(di);
  for (size_t j = 0; j < num_experts; ++j) {
    const IntVec other = hn::Set(di, keys[j]);
    const auto later = hn::Gt(position, hn::Set(di, static_cast<int32_t>(j)));
    const auto outranked = hn::Or(hn::Gt(other, key), hn::And(later, hn::Eq(other, key)));
    place = hn::IfThenElse(outranked, hn::Add(place, one), place);
  }
  for (size_t j = 0; j < top_k; ++j) {
    const auto here = hn::Eq(place, hn::Set(di, static_cast<int32_t>(j)));
    const auto expert = static_cast<size_t>(hn::FindFirstTrue(di, here));
    choice.experts[j] = static_cast<int32_t>(expert);
    choice.terms[j] = all_terms[expert];
  }
  if (!renormalize) choice.denominator = FoldedSum(all_terms, kLanes);
  return true;
}

// Larger rows: a bar, the few scores that reach it, their places. `size` is a multiple of 16.
HWY_INLINE bool ChooseRowAboveBar(const float* HWY_RESTRICT row, size_t size, size_t top_k,
                                  bool renormalize, ShortcutChoice& choice) {
  const FloatTag d;
  const float bar =
      top_k <= 8 ? ColumnThreshold<16>(row, size, top_k) : ColumnThreshold<32>(row, size, top_k);
  if (!(bar > kMinusInfinity)) return false;
  uint64_t words[kMaxExperts / 64];
  if (BitsAtLeast(row, size, bar, words) > Candidates::kMax) return false;
  Candidates candidates;
  CollectBits(row, words, size, candidates);
  RankCandidates(candidates, top_k, choice.experts);

  for (size_t j = 0; j < top_k; ++j) choice.terms[j] = row[choice.experts[j]];
  const float max = choice.terms[0];
  if (!std::isfinite(max)) return false;
  const FloatVec reference = hn::Set(d, max);
  if (choice.terms[top_k - 1] - max < numerics::ExpConstants::kLowestNormal) return false;
  for (size_t j = 0; j < top_k; j += kLanes) {
    const FloatVec term = ExpNormal(d, hn::Sub(hn::Load(d, choice.terms + j), reference));
    const auto chosen = hn::FirstN(d, HWY_MIN(top_k - j, kLanes));
    hn::Store(hn::IfThenElseZero(chosen, term), d, choice.terms + j);
  }
  if (!renormalize) choice.denominator = FoldLanes(ExpSumLanes(row, size, max));
  return true;
}

// Writes the row and returns true, or returns false when its values need the general way.
HWY_INLINE bool RouteByShortcut(const RouterConfig& config, const float* HWY_RESTRICT row,
                                int32_t* HWY_RESTRICT ids, float* HWY_RESTRICT weights) {
  const auto num_experts = static_cast<size_t>(config.num_experts);
  const auto top_k = static_cast<size_t>(config.top_k);
#if SWITCHYARD_ROW_REGISTERS
  if (FitsRegisters(config)) return RouteInRegisters(config, row, ids, weights);
#endif
  ShortcutChoice choice;
  for (float& term : choice.terms) term = 0.0f;
  const hn::CappedTag<float, 8> eight;
  bool is_chosen = false;  // ties go the longer way
  if (top_k == 2 && config.renormalize && num_experts <= kLanes) {
    is_chosen = num_experts <= hn::Lanes(eight)
                    ? ChooseBestTwo(eight, row, num_experts, choice)
                    : ChooseBestTwo(FloatTag(), row, num_experts, choice);
  }
  if (is_chosen) {
    // Nothing is left to do.
  } else if (num_experts <= kLanes) {
    if (!ChooseTinyRow(row, num_experts, top_k, config.renormalize, choice)) return false;
  } else {
    const size_t size = PaddedSize(num_experts);
    if (top_k > 8 && size % 32 != 0) return false;
    if (!ChooseRowAboveBar(row, size, top_k, config.renormalize, choice)) return false;
  }
  float total = choice.denominator;
  if (config.renormalize) total = top_k <= 8 ? FoldEight(choice.terms) : FoldSixteen(choice.terms);
  for (size_t j = 0; j < top_k; ++j) {
    ids[j] = choice.experts[j];
    weights[j] = choice.terms[j] / total * config.routed_scaling_factor;
  }
  return true;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

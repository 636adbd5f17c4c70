// One row of logits that the choice is made on, with ordinary values: the way of a single token.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_SHORTCUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_SHORTCUT_INL_H_
#undef SWITCHYARD_CPU_ROW_SHORTCUT_INL_H_
#else
#define SWITCHYARD_CPU_ROW_SHORTCUT_INL_H_
#endif

#include <bit>

#include "cpu/routing_task.h"
#include "cpu/row_inputs-inl.h"
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

// Keeps in every lane the two greatest of its own pair and those of `other_best`, `other_second`.
template <class V>
HWY_INLINE void MergePairs(V other_best, V other_second, V& best, V& second) {
  second = hn::Max(hn::Min(best, other_best), hn::Max(second, other_second));
  best = hn::Max(best, other_best);
}

// The greatest two lanes of x, none of them NaN, in every lane.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void BestTwoOfLanes(D d, V x, V& best, V& second) {
  best = x;
  second = hn::Set(d, kMinusInfinity);
  if constexpr (hn::MaxLanes(D()) >= 16) {
    const V other = hn::ConcatLowerUpper(d, x, x);
    MergePairs(other, second, best, second);
  }
  if constexpr (hn::MaxLanes(D()) >= 8) {
    MergePairs(hn::SwapAdjacentBlocks(best), hn::SwapAdjacentBlocks(second), best, second);
  }
  MergePairs(hn::Shuffle1032(best), hn::Shuffle1032(second), best, second);
  MergePairs(hn::Shuffle2301(best), hn::Shuffle2301(second), best, second);
}

// Routes a row of one vector of D or less to its best two, renormalised: one exponential. False,
// and nothing written, when they are equal or the values need the general way.
template <class D>
HWY_INLINE bool RouteToBestTwo(D d, const RouterConfig& config, const float* HWY_RESTRICT row,
                               int32_t* HWY_RESTRICT ids, float* HWY_RESTRICT weights) {
  using V = hn::Vec<D>;
  const auto num_experts = static_cast<size_t>(config.num_experts);
  const V x = LoadPadded(d, row, num_experts);
  const auto finite = hn::Lt(hn::Abs(x), hn::Set(d, std::numeric_limits<float>::infinity()));
  if (HWY_UNLIKELY(hn::CountTrue(d, finite) != num_experts)) return false;
  V best;
  V second;
  BestTwoOfLanes(d, x, best, second);
  const V difference = hn::Sub(second, best);
  const float distance = hn::GetLane(difference);
  if (HWY_UNLIKELY(distance < numerics::ExpConstants::kLowestNormal || distance == 0.0f)) {
    return false;
  }
  ids[0] = static_cast<int32_t>(hn::FindFirstTrue(d, hn::Eq(x, best)));
  ids[1] = static_cast<int32_t>(hn::FindFirstTrue(d, hn::Eq(x, second)));
  // The term of the best is 1.
  const float term = hn::GetLane(ExpNormal(d, difference));
  const float total = 1.0f + term;
  weights[0] = 1.0f / total * config.routed_scaling_factor;
  weights[1] = term / total * config.routed_scaling_factor;
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

// Writes the row and returns true, or returns false when its values need the general way. A row of
// more than kLanes experts is padded.
HWY_INLINE bool RouteByShortcut(const RouterConfig& config, const float* HWY_RESTRICT row,
                                int32_t* HWY_RESTRICT ids, float* HWY_RESTRICT weights) {
  const auto num_experts = static_cast<size_t>(config.num_experts);
  const auto top_k = static_cast<size_t>(config.top_k);
  if (top_k == 2 && config.renormalize && num_experts <= kLanes) {
    const hn::CappedTag<float, 8> eight;
    const bool is_routed = num_experts <= hn::Lanes(eight)
                               ? RouteToBestTwo(eight, config, row, ids, weights)
                               : RouteToBestTwo(FloatTag(), config, row, ids, weights);
    if (is_routed) return true;  // ties go the longer way
  }
  ShortcutChoice choice;
  for (float& term : choice.terms) term = 0.0f;
  if (num_experts <= kLanes) {
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

inline TokenOutcome RouteTokenByShortcut(const TokenTask& task) {
  const auto num_experts = static_cast<size_t>(task.config->num_experts);
  const auto* row = static_cast<const float*>(task.logits);
  HWY_ALIGN float padded[kMaxExperts];
  if (num_experts > kLanes && num_experts % kRowPadding != 0) {
    WidenRow(row, num_experts, nullptr, padded);
    row = padded;
  }
  return RouteByShortcut(*task.config, row, task.expert_ids, task.gate_weights)
             ? TokenOutcome::kRouted
             : TokenOutcome::kNotRouted;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

// Which choices of a row give way to residents, where one vector holds its candidates best first.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_SWAPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_SWAPS_INL_H_
#undef SWITCHYARD_CPU_ROW_SWAPS_INL_H_
#else
#define SWITCHYARD_CPU_ROW_SWAPS_INL_H_
#endif

#include <bit>
#include <cmath>

#include "cpu/row_inputs-inl.h"
#include "cpu/row_scores-inl.h"
#include "cpu/row_sorting-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if SWITCHYARD_ROW_REGISTERS

// The contract's sum of the first 8 lanes. Lanes behind a row's top_k hold 0, which changes no bit.
template <class D>
HWY_INLINE float FoldFirstEight(D d, hn::Vec<D> x) {
  const hn::CappedTag<float, 8> eight;
  const hn::Half<decltype(eight)> four;
  hn::Vec<decltype(eight)> all;
  if constexpr (hn::MaxLanes(D()) == 16) {
    all = hn::LowerHalf(eight, x);
  } else {
    all = x;
  }
  auto sums = hn::Add(hn::LowerHalf(four, all), hn::UpperHalf(four, all));
  sums = hn::Add(sums, hn::Shuffle1032(sums));
  return hn::GetLane(hn::Add(sums, hn::Shuffle2301(sums)));
}

// What a row's candidates are, best first.
template <class D>
struct RankedRow {
  hn::Vec<D> values;
  hn::Vec<hn::RebindToSigned<D>> experts;
  uint32_t residents;  // a bit a place
};

// How many of the pairs that the bonus allows the bounds allow as well, and what these lose.
struct BoundedPairs {
  uint32_t count;
  float loss;
};

// `values` are a row's, best first; `whole` is its denominator where single swaps are bounded.
template <class D>
HWY_NOINLINE BoundedPairs PairsWithinBounds(D d, const ResidencyPreference& preference,
                                            hn::Vec<D> values, size_t top_k, uint32_t pairs,
                                            hn::Vec<D> leaving, hn::Vec<D> coming, float whole) {
  const auto max = hn::Set(d, hn::GetLane(values));
  const auto mass_of = [&](hn::Vec<D> x) HWY_ATTR { return ExpOrZero(d, hn::Sub(x, max)); };
  const auto chosen = hn::FirstN(d, top_k);
  const float total = FoldFirstEight(d, hn::IfThenElseZero(chosen, mass_of(values)));
  const float share_limit = Limit(preference.max_sacrificed_share, total);
  const float swap_limit = Limit(preference.max_swap_loss, whole);
  HWY_ALIGN float losses[kLanes];
  const auto difference = hn::Sub(mass_of(leaving), mass_of(coming));
  hn::Store(hn::Max(difference, hn::Zero(d)), d, losses);
  BoundedPairs within{0, 0.0f};
  for (; within.count < pairs; ++within.count) {
    const float loss = losses[within.count];
    if (!(loss <= swap_limit) || !(within.loss + loss <= share_limit)) break;
    within.loss += loss;
  }
  return within;
}

// The places of a row's choice, top_k of them, after residents have been preferred; those that came
// are behind those that stayed. Writes what was lost, in units of the denominator, if anything.
template <class D, typename Denominator>
HWY_INLINE uint32_t KeptPlaces(D d, const ResidencyPreference& preference, bool is_weighed,
                               const RankedRow<D>& row, size_t top_k, float bonus,
                               const Denominator& denominator, float& loss) {
  using V = hn::Vec<D>;
  const hn::RebindToSigned<D> di;
  const uint32_t chosen = (1u << top_k) - 1;
  const uint32_t may_leave = chosen & ~row.residents & (~uint32_t{0} << preference.num_protected);
  const uint32_t may_come = row.residents & ~chosen;
  if (may_leave == 0 || may_come == 0) return chosen;
  // The weakest choice meets the best of the others, and so on.
  const auto num_leaving = static_cast<uint32_t>(std::popcount(may_leave));
  const auto from_weakest =
      hn::Sub(hn::Set(di, static_cast<int32_t>(num_leaving) - 1), hn::Iota(di, 0));
  const V leaving = hn::TableLookupLanes(hn::Compress(row.values, MaskOfBits(d, may_leave)),
                                         hn::IndicesFromVec(d, from_weakest));
  const V coming = hn::Compress(row.values, MaskOfBits(d, may_come));
  const V lifted = hn::Add(coming, hn::Set(d, bonus));
  uint32_t outranks = BitsOfMask(hn::Gt(lifted, leaving));
  const auto num_pairs = HWY_MIN(num_leaving, static_cast<uint32_t>(std::popcount(may_come)));
  const uint32_t pair_bits = (1u << num_pairs) - 1;
  const uint32_t equal = BitsOfMask(hn::Eq(lifted, leaving)) & pair_bits;
  if (HWY_UNLIKELY(equal != 0)) {
    const auto leaving_experts = hn::TableLookupLanes(
        hn::Compress(row.experts, MaskOfBits(di, may_leave)), hn::IndicesFromVec(di, from_weakest));
    const auto coming_experts = hn::Compress(row.experts, MaskOfBits(di, may_come));
    outranks |= equal & BitsOfMask(hn::Lt(coming_experts, leaving_experts));
  }
  auto pairs = static_cast<uint32_t>(std::countr_one(outranks & pair_bits));
  if (pairs == 0) return chosen;
  if (is_weighed) {
    // No probability is above 1, so a larger bound needs no denominator.
    const float whole = preference.max_swap_loss >= 1.0f ? 1.0f : denominator();
    const BoundedPairs within =
        PairsWithinBounds(d, preference, row.values, top_k, pairs, leaving, coming, whole);
    pairs = within.count;
    loss = within.loss;
  }
  const uint32_t stay = _pdep_u32((1u << (num_leaving - pairs)) - 1, may_leave);
  const uint32_t come = _pdep_u32((1u << pairs) - 1, may_come);
  return (chosen & ~may_leave) | stay | come;
}

#endif  // SWITCHYARD_ROW_REGISTERS

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

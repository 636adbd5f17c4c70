// One row of ordinary logits that the choice is made on, at most 8 experts chosen: from its first
// load to its last store without a detour through memory.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_REGISTERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_REGISTERS_INL_H_
#undef SWITCHYARD_CPU_ROW_REGISTERS_INL_H_
#else
#define SWITCHYARD_CPU_ROW_REGISTERS_INL_H_
#endif

#include <bit>
#include <cmath>

#include "cpu/routing_task.h"
#include "cpu/row_candidates-inl.h"
#include "cpu/row_inputs-inl.h"
#include "cpu/row_scores-inl.h"
#include "cpu/row_selection-inl.h"
#include "cpu/row_sorting-inl.h"
#include "cpu/row_swaps-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxRegisterExperts = 512;
constexpr size_t kMaxRegisterTopK = 8;

// Whether there is a kernel for rows of a config whose choice is made on all of their logits.
HWY_INLINE bool FitsRegisters(const RouterConfig& config) {
  return config.num_experts <= static_cast<int32_t>(kMaxRegisterExperts) &&
         config.top_k <= static_cast<int32_t>(kMaxRegisterTopK);
}

#if SWITCHYARD_ROW_REGISTERS

// The lanes of values in descending order, of equal ones the first first. Only the last bits of
// values can mislead it.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToSigned<D>> LanesInOrder(D d, hn::Vec<D> values) {
  const hn::RebindToSigned<D> di;
  constexpr auto kLast = static_cast<int32_t>(hn::MaxLanes(D())) - 1;
  const auto last = hn::Set(di, kLast);
  const auto ordered = OrderedBits(d, hn::Add(values, hn::Zero(d)));  // -0 becomes +0
  const auto countdown = hn::Sub(last, hn::Iota(di, 0));
  const auto keys = hn::Or(hn::AndNot(last, ordered), countdown);
  return hn::AndNot(SortDescending(di, keys), last);
}

// Whether all lanes descend and the first k are finite.
template <class D>
HWY_INLINE bool IsOrdinaryRanking(D d, hn::Vec<D> values, size_t k) {
  constexpr uint32_t kPairs = (1u << (hn::MaxLanes(D()) - 1)) - 1;
  const auto next = NextLanes(values);
  const uint32_t ascends = BitsOfMask(hn::Lt(values, next)) & kPairs;
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const uint32_t finite = BitsOfMask(hn::Lt(hn::Abs(values), infinity));
  return (ascends | (~finite & ((1u << k) - 1))) == 0;
}

template <class D, typename T>
HWY_INLINE void StoreFirst(D d, hn::Vec<D> x, size_t count, T* HWY_RESTRICT out) {
  if (count == 8) return hn::StoreU(x, d, out);
  if (count == 4) {
    const hn::Half<D> half;
    return hn::StoreU(hn::LowerHalf(half, x), half, out);
  }
  if (count == 2) {
    const hn::Half<hn::Half<D>> quarter;
    return hn::StoreU(hn::LowerHalf(quarter, hn::LowerHalf(hn::Half<D>(), x)), quarter, out);
  }
  hn::BlendedStore(x, hn::FirstN(d, count), d, out);
}

// Terms of weights, e^(x - max), and which of them are normal numbers; the others are garbage.
template <class D>
struct RowTerms {
  hn::Vec<D> values;
  hn::Mask<D> are_normal;
};

template <class D>
HWY_INLINE RowTerms<D> TermsOf(D d, hn::Vec<D> values, hn::Vec<D> max) {
  const auto floor = hn::Set(d, numerics::ExpConstants::kLowestNormal);
  const auto below_max = hn::Sub(values, max);
  return {ExpNormal(d, hn::Max(below_max, floor)), hn::Ge(below_max, floor)};
}

// Of a row's choice, which no more than 8 lanes hold.
using ChoiceTag = hn::CappedTag<float, 8>;

HWY_INLINE hn::Vec<ChoiceTag> ChoiceLanes(hn::Vec<ChoiceTag> x) { return x; }
HWY_INLINE hn::Vec<hn::RebindToSigned<ChoiceTag>> ChoiceLanes(
    hn::Vec<hn::RebindToSigned<ChoiceTag>> x) {
  return x;
}
HWY_INLINE hn::Vec<ChoiceTag> ChoiceLanes(FloatVec x) { return hn::LowerHalf(ChoiceTag(), x); }
HWY_INLINE hn::Vec<hn::RebindToSigned<ChoiceTag>> ChoiceLanes(IntVec x) {
  return hn::LowerHalf(hn::RebindToSigned<ChoiceTag>(), x);
}

// Ranks candidates, prefers residents where the task does and writes the row, unless its values
// need another way. The exponentials are under way while the candidates are sorted. `max` is the
// row's in every lane.
template <class D, typename Denominator>
HWY_INLINE TokenOutcome RouteCandidates(D d, const TokenTask& task, hn::Vec<D> values,
                                        hn::Vec<hn::RebindToSigned<D>> experts, hn::Vec<D> max,
                                        uint32_t residents, float bonus,
                                        const Denominator& denominator) {
  const hn::RebindToSigned<D> di;
  const RouterConfig& config = *task.config;
  const auto top_k = static_cast<size_t>(config.top_k);
  const RowTerms<D> unordered = TermsOf(d, values, max);
  const auto lanes = LanesInOrder(d, values);
  const auto order = hn::IndicesFromVec(d, lanes);
  RankedRow<D> row;
  row.values = hn::TableLookupLanes(values, order);
  row.experts = hn::TableLookupLanes(experts, hn::IndicesFromVec(di, lanes));
  if (HWY_UNLIKELY(!IsOrdinaryRanking(d, row.values, top_k))) return TokenOutcome::kNotRouted;
  auto terms = hn::TableLookupLanes(unordered.values, order);
  // Values descend, so the normal ones are the first.
  uint32_t normal = (1u << std::popcount(BitsOfMask(unordered.are_normal))) - 1;

  uint32_t kept = (1u << top_k) - 1;
  float loss = 0.0f;
  auto outcome = TokenOutcome::kRouted;
  auto chosen_experts = row.experts;
  if (task.residency != nullptr) {
    const auto bits = hn::Set(di, static_cast<int32_t>(residents));
    row.residents = BitsOfMask(hn::TestBit(bits, hn::Shl(hn::Set(di, 1), lanes)));
    const ResidencyPreference& preference = *task.residency;
    const bool is_weighed = task.sacrificed_mass != nullptr ||
                            std::isfinite(preference.max_swap_loss) ||
                            std::isfinite(preference.max_sacrificed_share);
    kept = KeptPlaces(d, preference, is_weighed, row, top_k, bonus, denominator, loss);
    if ((kept & ~row.residents) == 0) outcome = TokenOutcome::kRoutedToResidents;
    if (kept != (1u << top_k) - 1) {
      if (HWY_UNLIKELY((kept & 1) == 0) && config.renormalize) {
        // Terms are relative to the best that is chosen, and that one has changed.
        const auto first = hn::Set(di, std::countr_zero(kept));
        const RowTerms<D> fresh =
            TermsOf(d, row.values, hn::TableLookupLanes(row.values, hn::IndicesFromVec(d, first)));
        terms = fresh.values;
        normal = BitsOfMask(fresh.are_normal);
      }
      terms = hn::Compress(terms, MaskOfBits(d, kept));
      chosen_experts = hn::Compress(row.experts, MaskOfBits(di, kept));
    }
  }
  if (HWY_UNLIKELY((kept & ~normal) != 0)) return TokenOutcome::kNotRouted;

  const ChoiceTag eight;
  const hn::RebindToSigned<ChoiceTag> eight_int;
  const auto weighed = hn::IfThenElseZero(hn::FirstN(eight, top_k), ChoiceLanes(terms));
  const float total = config.renormalize ? FoldFirstEight(eight, weighed) : denominator();
  const auto scale = hn::Set(eight, config.routed_scaling_factor);
  StoreFirst(eight, hn::Mul(hn::Div(weighed, hn::Set(eight, total)), scale), top_k,
             task.gate_weights);
  StoreFirst(eight_int, ChoiceLanes(chosen_experts), top_k, task.expert_ids);
  if (task.sacrificed_mass != nullptr) {
    *task.sacrificed_mass = loss == 0.0f ? 0.0f : loss / denominator();
  }
  return outcome;
}

// Greatest less least of finite scores.
template <typename Row>
HWY_INLINE float SpreadOfVectors(const Row& row, size_t count) {
  const FloatTag d;
  FloatVec greatest = hn::Set(d, kMinusInfinity);
  FloatVec least_negated = greatest;
  for (size_t i = 0; i < count; ++i) {
    const auto finite = IsFiniteMask(row[i]);
    greatest = hn::Max(greatest, hn::IfThenElse(finite, row[i], hn::Set(d, kMinusInfinity)));
    least_negated =
        hn::Max(least_negated, hn::IfThenElse(finite, hn::Neg(row[i]), hn::Set(d, kMinusInfinity)));
  }
  return GreatestLane(greatest) + GreatestLane(least_negated);
}

// As LoadPadded() of float32, widened.
HWY_INLINE FloatVec LoadPadded(FloatTag d, const BFloat16* p, size_t count) {
  const auto present = hn::FirstN(d, count);
  const __m256i bits = _mm256_maskz_loadu_epi16(present.raw, p);
  const FloatVec x{_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  return hn::IfThenElse(present, x, hn::Set(d, kMinusInfinity));
}
HWY_INLINE hn::Vec256<float> LoadPadded(hn::CappedTag<float, 8> d, const BFloat16* p,
                                        size_t count) {
  const auto present = hn::FirstN(d, count);
  const __m128i bits = _mm_maskz_loadu_epi16(present.raw, p);
  const hn::Vec256<float> x{
      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  return hn::IfThenElse(present, x, hn::Set(d, kMinusInfinity));
}

// Rows of one vector or less, of logits of T: every expert is a candidate.
template <typename T, class D>
HWY_INLINE TokenOutcome RouteOneVector(D d, const TokenTask& task) {
  const hn::RebindToSigned<D> di;
  const auto num_experts = static_cast<size_t>(task.config->num_experts);
  const auto x = LoadPadded(d, static_cast<const T*>(task.logits), num_experts);
  const auto infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  const auto finite = hn::Lt(hn::Abs(x), infinity);
  if (HWY_UNLIKELY(hn::CountTrue(d, finite) != num_experts)) return TokenOutcome::kNotRouted;
  const auto max = hn::MaxOfLanes(d, x);
  uint32_t residents = 0;
  float bonus = 0.0f;
  if (task.residency != nullptr) {
    residents =
        static_cast<uint32_t>(BitsOfFlags(task.residency->resident_experts.data, num_experts));
    bonus = Bonus(*task.residency, [&]() HWY_ATTR {
      const auto least = hn::MinOfLanes(d, hn::IfThenElse(finite, x, infinity));
      return hn::GetLane(max) - hn::GetLane(least);
    });
  }
  const auto denominator = [&]() HWY_ATTR {
    const auto terms = hn::IfThenElseZero(finite, ExpOrZero(d, hn::Sub(x, max)));
    if constexpr (hn::MaxLanes(D()) == 16) return FoldLanes(terms);
    return FoldFirstEight(d, terms);
  };
  return RouteCandidates(d, task, x, hn::Iota(di, 0), max, residents, bonus, denominator);
}

// Rows of up to 64 * kWords experts; of more than 64 all of them.
template <size_t kWords>
HWY_INLINE TokenOutcome RouteVectors(const TokenTask& task) {
  const auto num_experts = static_cast<size_t>(task.config->num_experts);
  const RowVectors<kWords> row(static_cast<const float*>(task.logits), num_experts);
  RowResidents<kWords> residents;
  if (task.residency != nullptr) {
    const uint8_t* const flags = task.residency->resident_experts.data;
    for (size_t word = 0; word < kWords; ++word) {
      const size_t begin = HWY_MIN(64 * word, num_experts);
      residents.words[word] = BitsOfFlags(flags + begin, num_experts - begin);
    }
    residents.bonus = Bonus(*task.residency, [&]() HWY_ATTR {
      return SpreadOfVectors(row, RowVectors<kWords>::kCount);
    });
    residents.are_preferred = true;
  }
  RowCandidates candidates;
  if (!FindCandidates(row, num_experts, static_cast<size_t>(task.config->top_k), residents,
                      candidates)) {
    return TokenOutcome::kNotRouted;
  }
  const auto denominator = [&]() HWY_ATTR { return row.Denominator(candidates.max, num_experts); };
  if (task.config->top_k <= 4 && candidates.count <= 8) {
    const ChoiceTag eight;
    return RouteCandidates(eight, task, ChoiceLanes(candidates.values),
                           ChoiceLanes(candidates.experts), ChoiceLanes(candidates.max),
                           candidates.residents, residents.bonus, denominator);
  }
  return RouteCandidates(FloatTag(), task, candidates.values, candidates.experts, candidates.max,
                         candidates.residents, residents.bonus, denominator);
}

template <typename T, size_t kSize>
inline TokenOutcome RouteOneVectorOf(const TokenTask& task) {
  return RouteOneVector<T>(hn::CappedTag<float, kSize>(), task);
}

// Of more than one word, rows are widened to whole words.
template <size_t kWords>
inline TokenOutcome RouteWords(const TokenTask& task) {
  const auto num_experts = static_cast<size_t>(task.config->num_experts);
  if (kWords == 1 || num_experts == 64 * kWords) return RouteVectors<kWords>(task);
  HWY_ALIGN float padded[64 * kWords];
  const FloatTag d;
  WidenRow(static_cast<const float*>(task.logits), num_experts, nullptr, padded);
  for (size_t i = PaddedSize(num_experts); i < 64 * kWords; i += kLanes) {
    hn::Store(hn::Set(d, kMinusInfinity), d, padded + i);
  }
  TokenTask whole = task;
  whole.logits = padded;
  return RouteVectors<kWords>(whole);
}

// The kernel for logits of T, one vector of them or less; null for more.
template <typename T>
HWY_INLINE TokenRouteKernel OneVectorKernelFor(size_t num_experts) {
  if (num_experts <= 8) return RouteOneVectorOf<T, 8>;
  return num_experts <= 16 ? RouteOneVectorOf<T, 16> : nullptr;
}

// The kernel for a config that FitsRegisters().
HWY_INLINE TokenRouteKernel RegisterKernelFor(size_t num_experts) {
  if (num_experts <= 16) return OneVectorKernelFor<float>(num_experts);
  if (num_experts <= 64) return RouteWords<1>;
  if (num_experts <= 128) return RouteWords<2>;
  return num_experts <= 256 ? RouteWords<4> : RouteWords<8>;
}

#endif  // SWITCHYARD_ROW_REGISTERS

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

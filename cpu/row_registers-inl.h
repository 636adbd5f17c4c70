// One row of logits that four vectors hold, with ordinary values, chosen without a detour through
// memory: a vector load of what was stored in pieces waits for all of them.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_REGISTERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_REGISTERS_INL_H_
#undef SWITCHYARD_CPU_ROW_REGISTERS_INL_H_
#else
#define SWITCHYARD_CPU_ROW_REGISTERS_INL_H_
#endif

#include "cpu/row_inputs-inl.h"
#include "cpu/row_selection-inl.h"
#include "hwy/highway.h"

// Byte compression and the lookup in two vectors have no form in Highway 1.0: with them a single
// token of 64 experts, top 8, takes 0.6 of the time.
#define SWITCHYARD_ROW_REGISTERS (HWY_ARCH_X86_64 && HWY_TARGET <= HWY_AVX3_DL)

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxRegisterExperts = 64;
constexpr size_t kMaxRegisterTopK = 8;

// Whether RouteInRegisters() takes rows of a config.
HWY_INLINE bool FitsRegisters(const RouterConfig& config) {
  const auto num_experts = static_cast<size_t>(config.num_experts);
  return SWITCHYARD_ROW_REGISTERS && num_experts > kLanes && num_experts <= kMaxRegisterExperts &&
         config.top_k <= static_cast<int32_t>(kMaxRegisterTopK);
}

#if SWITCHYARD_ROW_REGISTERS

static_assert(kLanes == 16);

// The experts whose bits are set in `word`, at most 16 of them, ascending.
HWY_INLINE IntVec ExpertsOfBits(uint64_t word) {
  const hn::ScalableTag<uint8_t> d8;
  const auto all = hn::Iota(d8, 0);
  const __m512i packed = _mm512_maskz_compress_epi8(word, all.raw);
  return IntVec{_mm512_cvtepu8_epi32(_mm512_castsi512_si128(packed))};
}

// x[index[lane]] of a row in four vectors.
HWY_INLINE FloatVec LookUp(const FloatVec (&x)[4], IntVec index) {
  const __m512 low = _mm512_permutex2var_ps(x[0].raw, index.raw, x[1].raw);
  const __m512 high = _mm512_permutex2var_ps(x[2].raw, index.raw, x[3].raw);
  const auto upper = hn::Gt(index, hn::Set(IntTag(), 31));
  return hn::IfThenElse(hn::RebindMask(FloatTag(), upper), FloatVec{high}, FloatVec{low});
}

// A bar that at least k scores reach, when `column` holds the maxima of as many columns as it has
// lanes: the least column that fewer than k exceed.
template <class D, class V = hn::Vec<D>>
HWY_INLINE float BarOfColumns(D d, V column, size_t k) {
  const hn::RebindToSigned<D> di;
  HWY_ALIGN float columns[kLanes];
  hn::Store(column, d, columns);
  auto above = hn::Zero(di);
  for (size_t j = 0; j < hn::Lanes(d); ++j) {
    const auto exceeded = hn::Gt(hn::Set(d, columns[j]), column);
    above = hn::Sub(above, hn::VecFromMask(di, hn::RebindMask(di, exceeded)));
  }
  const auto among_best = hn::RebindMask(d, hn::Lt(above, hn::Set(di, static_cast<int32_t>(k))));
  const V highest = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::GetLane(hn::MinOfLanes(d, hn::IfThenElse(among_best, column, highest)));
}

// Each candidate's place: the number of those that exceed it, and with kTies of the equal ones
// before it. Candidates ascend by expert.
template <bool kTies, class D, class V = hn::Vec<D>>
HWY_INLINE hn::Vec<hn::RebindToSigned<D>> PlacesOf(D d, V values, size_t count) {
  const hn::RebindToSigned<D> di;
  HWY_ALIGN float stored[kLanes];
  hn::Store(values, d, stored);
  const auto position = hn::Iota(di, 0);
  auto place = hn::Zero(di);
  for (size_t j = 0; j < count; ++j) {
    const auto other = hn::Set(d, stored[j]);
    auto outranked = hn::RebindMask(di, hn::Gt(other, values));
    if constexpr (kTies) {
      const auto later = hn::Gt(position, hn::Set(di, static_cast<int32_t>(j)));
      const auto equal = hn::RebindMask(di, hn::Eq(other, values));
      outranked = hn::Or(outranked, hn::And(later, equal));
    }
    place = hn::Sub(place, hn::VecFromMask(di, outranked));
  }
  return place;
}

// The lanes at places 0 to top_k - 1; false when one of these places is nobody's.
template <class DI>
HWY_INLINE bool LanesAtPlaces(DI di, hn::Vec<DI> place, size_t top_k, size_t* HWY_RESTRICT lanes) {
  bool all = true;
  for (size_t j = 0; j < top_k; ++j) {
    const auto here = hn::Eq(place, hn::Set(di, static_cast<int32_t>(j)));
    const auto bits = static_cast<uint32_t>(here.raw);
    all &= bits != 0;
    lanes[j] = hwy::Num0BitsBelowLS1Bit_Nonzero32(bits | 1u << (hn::Lanes(di) - 1));
  }
  return all;
}

// Softmax over the contract's tree of a row in four vectors.
HWY_INLINE float DenominatorOf(const FloatVec (&x)[4], FloatVec max) {
  const FloatTag d;
  FloatVec terms[4];
  for (size_t i = 0; i < 4; ++i) terms[i] = ExpOrZero(d, hn::Sub(x[i], max));
  return FoldLanes(hn::Add(hn::Add(terms[0], terms[2]), hn::Add(terms[1], terms[3])));
}

// Ranks the first `count` of the candidates, writes the best and returns true, or returns false
// when a weight would not be a normal number. `max` is the row's in every lane.
template <class D, typename Denominator, class V = hn::Vec<D>>
HWY_INLINE bool WriteChoice(D d, const RouterConfig& config, V candidates,
                            hn::Vec<hn::RebindToSigned<D>> experts, size_t count, V max,
                            const Denominator& denominator, int32_t* HWY_RESTRICT ids,
                            float* HWY_RESTRICT weights) {
  const hn::RebindToSigned<D> di;
  const auto top_k = static_cast<size_t>(config.top_k);
  const auto present = hn::FirstN(d, count);
  const V values = hn::IfThenElse(present, candidates, hn::Set(d, kMinusInfinity));
  const V floor = hn::Set(d, numerics::ExpConstants::kLowestNormal);
  // Of an infinite maximum all of these are -inf or NaN.
  const V below_max = hn::Sub(values, max);
  if (HWY_UNLIKELY(hn::CountTrue(d, hn::Ge(below_max, floor)) != count)) return false;
  const V terms = hn::IfThenElseZero(present, ExpNormal(d, hn::Max(below_max, floor)));
  HWY_ALIGN float stored_terms[kLanes];
  HWY_ALIGN int32_t stored_experts[kLanes];
  hn::Store(terms, d, stored_terms);
  hn::Store(experts, di, stored_experts);

  // Where two are equal the later one's place is nobody's.
  size_t lanes[kMaxRegisterTopK];
  if (HWY_UNLIKELY(!LanesAtPlaces(di, PlacesOf<false>(d, values, count), top_k, lanes))) {
    LanesAtPlaces(di, PlacesOf<true>(d, values, count), top_k, lanes);
  }
  float sorted_terms[kMaxRegisterTopK] = {};
  for (size_t j = 0; j < top_k; ++j) {
    sorted_terms[j] = stored_terms[lanes[j]];
    ids[j] = stored_experts[lanes[j]];
  }
  const float total = config.renormalize ? FoldEight(sorted_terms) : denominator();
  const V scale = hn::Set(d, config.routed_scaling_factor);
  HWY_ALIGN float stored_weights[kLanes];
  hn::Store(hn::Mul(hn::Div(terms, hn::Set(d, total)), scale), d, stored_weights);
  for (size_t j = 0; j < top_k; ++j) weights[j] = stored_weights[lanes[j]];
  return true;
}

// Routes a row of 17 to 64 experts, at most 8 of them chosen. Writes the row and returns true, or
// returns false when its values need another way.
HWY_INLINE bool RouteInRegisters(const RouterConfig& config, const float* HWY_RESTRICT row,
                                 int32_t* HWY_RESTRICT ids, float* HWY_RESTRICT weights) {
  const FloatTag d;
  const IntTag di;
  const auto num_experts = static_cast<size_t>(config.num_experts);
  const auto top_k = static_cast<size_t>(config.top_k);
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  FloatVec x[4];
  for (size_t i = 0; i < 4; ++i) {
    const size_t begin = i * kLanes;
    x[i] = begin < num_experts ? LoadPadded(d, row + begin, HWY_MIN(num_experts - begin, kLanes))
                               : lowest;
  }
  const FloatVec column = hn::Max(MaxOfNumbers(x[0], MaxOfNumbers(x[1], lowest)),
                                  MaxOfNumbers(x[2], MaxOfNumbers(x[3], lowest)));
  const FloatVec max = hn::MaxOfLanes(d, column);

  // Half as many columns are enough for half as many choices.
  const hn::Half<FloatTag> half;
  const float bar =
      top_k <= kMaxRegisterTopK / 2
          ? BarOfColumns(half, hn::Max(hn::LowerHalf(half, column), hn::UpperHalf(half, column)),
                         top_k)
          : BarOfColumns(d, column, top_k);
  uint64_t word = 0;
  for (size_t i = 0; i < 4; ++i) {
    word |= MaskBits(hn::RebindMask(di, hn::Ge(x[i], hn::Set(d, bar)))) << (i * kLanes);
  }
  const size_t count = hwy::PopCount(word);
  // Fewer of a row of NaN; more of one whose bar is -inf, and of ties.
  if (HWY_UNLIKELY(count < top_k || count > kLanes)) return false;
  const IntVec experts = ExpertsOfBits(word);
  const FloatVec values = LookUp(x, experts);
  const auto denominator = [&] { return DenominatorOf(x, max); };
  // Half a vector is half the work.
  if (count <= kLanes / 2) {
    const hn::Half<IntTag> half_int;
    return WriteChoice(half, config, hn::LowerHalf(half, values), hn::LowerHalf(half_int, experts),
                       count, hn::LowerHalf(half, max), denominator, ids, weights);
  }
  return WriteChoice(d, config, values, experts, count, max, denominator, ids, weights);
}

#endif  // SWITCHYARD_ROW_REGISTERS

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

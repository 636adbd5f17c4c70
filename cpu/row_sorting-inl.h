// Sorting the lanes of one vector, for rows that registers hold.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_SORTING_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_SORTING_INL_H_
#undef SWITCHYARD_CPU_ROW_SORTING_INL_H_
#else
#define SWITCHYARD_CPU_ROW_SORTING_INL_H_
#endif

#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

// Masks as bits, compression in registers and lookups in vectors make these worth while; Highway
// 1.0 has no form of some of them.
#define SWITCHYARD_ROW_REGISTERS (HWY_ARCH_X86_64 && HWY_TARGET <= HWY_AVX3_DL)

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if SWITCHYARD_ROW_REGISTERS

static_assert(kLanes == 16);

template <class D>
HWY_INLINE hn::Mask<D> MaskOfBits(D, uint32_t bits) {
  hn::Mask<D> mask;
  mask.raw = static_cast<decltype(mask.raw)>(bits);
  return mask;
}

template <class M>
HWY_INLINE uint32_t BitsOfMask(M mask) {
  return static_cast<uint32_t>(mask.raw);
}

// Lane i holds lane i + 1.
HWY_INLINE FloatVec NextLanes(FloatVec x) {
  const __m512i bits = _mm512_castps_si512(x.raw);
  return FloatVec{_mm512_castsi512_ps(_mm512_alignr_epi32(bits, bits, 1))};
}
HWY_INLINE hn::Vec256<float> NextLanes(hn::Vec256<float> x) {
  const __m256i bits = _mm256_castps_si256(x.raw);
  return hn::Vec256<float>{_mm256_castsi256_ps(_mm256_alignr_epi32(bits, bits, 1))};
}

// The lanes that take the greater of themselves and their partner `distance` away, where runs of
// `size` lanes descend and ascend in turn.
constexpr uint32_t GreaterLanes(size_t size, size_t distance) {
  uint32_t bits = 0;
  for (size_t lane = 0; lane < 16; ++lane) {
    const bool is_first = (lane & distance) == 0;
    const bool descends = (lane & size) == 0;
    bits |= static_cast<uint32_t>(is_first == descends) << lane;
  }
  return bits;
}

template <size_t kDistance, class D>
HWY_INLINE hn::Vec<D> Partners(D d, hn::Vec<D> x) {
  if constexpr (kDistance == 1) return hn::Shuffle2301(x);
  if constexpr (kDistance == 2) return hn::Shuffle1032(x);
  if constexpr (kDistance == 4) return hn::SwapAdjacentBlocks(x);
  if constexpr (kDistance == 8) return hn::ConcatLowerUpper(d, x, x);
}

// A step of a bitonic sort. No lane is NaN.
template <size_t kSize, size_t kDistance, class D>
HWY_INLINE hn::Vec<D> Exchange(D d, hn::Vec<D> x) {
  const hn::Vec<D> other = Partners<kDistance>(d, x);
  const auto greater = MaskOfBits(d, GreaterLanes(kSize, kDistance));
  return hn::IfThenElse(greater, hn::Max(x, other), hn::Min(x, other));
}

// Lanes 0 to 7 descend; 8 to 15, if there are any, ascend.
template <class D>
HWY_INLINE hn::Vec<D> SortEights(D d, hn::Vec<D> x) {
  x = Exchange<2, 1>(d, x);
  x = Exchange<4, 1>(d, Exchange<4, 2>(d, x));
  return Exchange<8, 1>(d, Exchange<8, 2>(d, Exchange<8, 4>(d, x)));
}

template <class D>
HWY_INLINE hn::Vec<D> SortDescending(D d, hn::Vec<D> x) {
  x = SortEights(d, x);
  if constexpr (hn::MaxLanes(D()) == 16) {
    x = Exchange<16, 4>(d, Exchange<16, 8>(d, x));
    x = Exchange<16, 1>(d, Exchange<16, 2>(d, x));
  }
  return x;
}

// The best 8 lanes, descending, behind which are zeros.
HWY_INLINE IntVec BestEight(IntVec x) {
  const IntTag d;
  const hn::Half<IntTag> half;
  x = SortEights(d, x);
  // They first descend, then ascend.
  auto best = hn::Max(hn::LowerHalf(half, x), hn::UpperHalf(half, x));
  best = Exchange<8, 1>(half, Exchange<8, 2>(half, Exchange<8, 4>(half, best)));
  return hn::ZeroExtendVector(d, best);
}

// The same of the greater lanes of both halves: fewer steps.
HWY_INLINE IntVec BestEightOfHalves(IntVec x) {
  const IntTag d;
  const hn::Half<IntTag> half;
  const auto best = hn::Max(hn::LowerHalf(half, x), hn::UpperHalf(half, x));
  return hn::ZeroExtendVector(d, SortDescending(half, best));
}

// A lane, in every lane.
HWY_INLINE IntVec LaneOf(IntVec x, size_t lane) {
  const IntTag d;
  const IntVec index = hn::Set(d, static_cast<int32_t>(lane));
  return hn::TableLookupLanes(x, hn::IndicesFromVec(d, index));
}

#endif  // SWITCHYARD_ROW_REGISTERS

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

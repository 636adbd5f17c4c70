// The few experts of a row that a choice can fall on: those whose logits, lifted where the expert
// is resident, reach a bar that at least top_k logits reach. In registers all the way: a vector
// load of what was stored in pieces waits for all of them.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_CANDIDATES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_CANDIDATES_INL_H_
#undef SWITCHYARD_CPU_ROW_CANDIDATES_INL_H_
#else
#define SWITCHYARD_CPU_ROW_CANDIDATES_INL_H_
#endif

#include <array>

#include "cpu/row_inputs-inl.h"
#include "cpu/row_selection-inl.h"
#include "cpu/row_sorting-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if SWITCHYARD_ROW_REGISTERS

// The lowest `count` bits; all of 64 or more.
HWY_INLINE uint64_t FirstBits(size_t count) {
  return _bzhi_u64(~uint64_t{0}, count < 64 ? count : 64);
}

// A bit for each of at most 64 flags that is not 0. Reads no byte behind them.
HWY_INLINE uint64_t BitsOfFlags(const uint8_t* HWY_RESTRICT flags, size_t count) {
  const __m512i bytes = _mm512_maskz_loadu_epi8(FirstBits(count), flags);
  return _mm512_test_epi8_mask(bytes, bytes);
}

// A row of 64 * kWords logits. Of one word, the experts behind the last are -inf.
template <size_t kWords>
class RowVectors {
 public:
  static constexpr size_t kCount = 4 * kWords;
  RowVectors(const float* HWY_RESTRICT row, size_t /*num_experts*/) : row_(row) {}
  [[nodiscard]] const float* data() const { return row_; }
  HWY_INLINE FloatVec operator[](size_t i) const {
    return hn::LoadU(FloatTag(), row_ + i * kLanes);
  }
  HWY_INLINE float Denominator(FloatVec max, size_t num_experts) const {
    return FoldLanes(ExpSumLanes(row_, num_experts, hn::GetLane(max)));
  }
  HWY_INLINE FloatVec LookUp(IntVec experts, hn::Mask<FloatTag> present) const {
    const __m512 lowest = _mm512_set1_ps(kMinusInfinity);
    return FloatVec{
        _mm512_mask_i32gather_ps(lowest, present.raw, experts.raw, row_, sizeof(float))};
  }

 private:
  const float* row_;
};

template <>
class RowVectors<1> {
 public:
  static constexpr size_t kCount = 4;
  HWY_INLINE RowVectors(const float* HWY_RESTRICT row, size_t num_experts) : row_(row) {
    const uint64_t present = FirstBits(num_experts);
    const __m512 lowest = _mm512_set1_ps(kMinusInfinity);
    for (size_t i = 0; i < kCount; ++i) {
      const auto here = static_cast<__mmask16>(present >> (i * kLanes));
      x_[i] = FloatVec{_mm512_mask_loadu_ps(lowest, here, row + i * kLanes)};
    }
  }
  [[nodiscard]] const float* data() const { return row_; }
  HWY_INLINE FloatVec operator[](size_t i) const { return x_[i]; }
  HWY_INLINE float Denominator(FloatVec max, size_t /*num_experts*/) const {
    const FloatTag d;
    FloatVec terms[kCount];
    for (size_t i = 0; i < kCount; ++i) terms[i] = ExpOrZero(d, hn::Sub(x_[i], max));
    return FoldLanes(hn::Add(hn::Add(terms[0], terms[2]), hn::Add(terms[1], terms[3])));
  }
  HWY_INLINE FloatVec LookUp(IntVec experts, hn::Mask<FloatTag> present) const {
    const FloatTag d;
    const __m512 low = _mm512_permutex2var_ps(x_[0].raw, experts.raw, x_[1].raw);
    const __m512 high = _mm512_permutex2var_ps(x_[2].raw, experts.raw, x_[3].raw);
    const auto upper = hn::RebindMask(d, hn::Gt(experts, hn::Set(IntTag(), 31)));
    const FloatVec found = hn::IfThenElse(upper, FloatVec{high}, FloatVec{low});
    return hn::IfThenElse(present, found, hn::Set(d, kMinusInfinity));
  }

 private:
  const float* row_;
  FloatVec x_[kCount];
};

// The maxima of 16 columns; NaN counts as -inf.
template <size_t kWords>
HWY_INLINE FloatVec ColumnMaxima(const RowVectors<kWords>& row) {
  FloatVec best[4];
  for (FloatVec& column : best) column = hn::Set(FloatTag(), kMinusInfinity);
  for (size_t i = 0; i < RowVectors<kWords>::kCount; i += 4) {
    for (size_t j = 0; j < 4; ++j) best[j] = MaxOfNumbers(row[i + j], best[j]);
  }
  return hn::Max(hn::Max(best[0], best[1]), hn::Max(best[2], best[3]));
}

// Of at most 16 experts of a row, in ascending order.
struct RowCandidates {
  FloatVec values;  // -0 as +0; -inf behind the last
  IntVec experts;
  FloatVec max;  // in every lane
  size_t count;
  uint32_t residents;  // a bit a candidate
};

// The experts whose bits are set, at most 16 of them.
template <size_t kWords>
HWY_INLINE IntVec ExpertsOfBits(const uint64_t (&words)[kWords]) {
  alignas(64) static constexpr auto kIota = [] {
    std::array<uint8_t, 64> bytes{};
    for (size_t i = 0; i < 64; ++i) bytes[i] = static_cast<uint8_t>(i);
    return bytes;
  }();
  const __m512i first = _mm512_load_si512(kIota.data());
  __m128i bytes = _mm512_castsi512_si128(_mm512_maskz_compress_epi8(words[0], first));
  size_t count = hwy::PopCount(words[0]);
  uint32_t beyond_bytes = 0;  // lanes of experts from 256 on
  for (size_t i = 1; i < kWords; ++i) {
    if (i == 4) beyond_bytes = 0xFFFFu << count;
    const __m512i ids = _mm512_add_epi8(first, _mm512_set1_epi8(static_cast<char>(i * 64)));
    const __m128i more = _mm512_castsi512_si128(_mm512_maskz_compress_epi8(words[i], ids));
    bytes = _mm_mask_expand_epi8(bytes, static_cast<__mmask16>(0xFFFFu << count), more);
    count += hwy::PopCount(words[i]);
  }
  const __m512i experts = _mm512_cvtepu8_epi32(bytes);
  if constexpr (kWords <= 4) return IntVec{experts};
  return IntVec{_mm512_mask_add_epi32(experts, static_cast<__mmask16>(beyond_bytes), experts,
                                      _mm512_set1_epi32(256))};
}

// The residents of a row and what lifts them.
template <size_t kWords>
struct RowResidents {
  uint64_t words[kWords] = {};  // a bit an expert
  float bonus = 0.0f;
  bool are_preferred = false;
};

// Experts as bits.
template <size_t kWords>
struct RowBits {
  uint64_t words[kWords];
  size_t count = 0;
};

// The experts that reach the bar, with residents lifted or not.
template <bool kLifts, size_t kWords>
HWY_INLINE RowBits<kWords> ReachBar(const RowVectors<kWords>& row, FloatVec bar,
                                    const RowResidents<kWords>& residents) {
  const FloatVec lift = hn::Set(FloatTag(), residents.bonus);
  RowBits<kWords> bits;
  for (size_t word = 0; word < kWords; ++word) {
    const auto reaches = [&](size_t i) HWY_ATTR {
      FloatVec x = row[4 * word + i];
      if constexpr (kLifts) {
        const auto here = static_cast<__mmask16>(residents.words[word] >> (i * kLanes));
        x = FloatVec{_mm512_mask_add_ps(x.raw, here, x.raw, lift.raw)};
      }
      return hn::Ge(x, bar).raw;
    };
    const __mmask32 low = _mm512_kunpackw(reaches(1), reaches(0));
    const __mmask32 high = _mm512_kunpackw(reaches(3), reaches(2));
    bits.words[word] = _mm512_kunpackd(high, low);
    bits.count += hwy::PopCount(bits.words[word]);
  }
  return bits;
}

template <size_t kWords>
HWY_INLINE FloatVec ValuesOf(const RowVectors<kWords>& row, IntVec experts, size_t count) {
  const FloatTag d;
  return row.LookUp(experts, MaskOfBits(d, (1u << count) - 1));
}

// As ReachBar() for the highest bar that k logits reach; as it was where too many plain logits
// reach `bar` to tell. All by value: what is referred to would be kept in memory by who seldom
// calls this.
template <size_t kWords>
HWY_NOINLINE RowBits<kWords> ReachHighestBar(const float* data, size_t num_experts, size_t k,
                                             FloatVec bar, RowResidents<kWords> residents) {
  const RowVectors<kWords> row(data, num_experts);
  const RowBits<kWords> plain = ReachBar<false>(row, bar, residents);
  if (plain.count < k || plain.count > kLanes) return plain;
  const FloatVec values = ValuesOf(row, ExpertsOfBits(plain.words), plain.count);
  const IntVec best = BestEight(OrderedBits(values));
  return ReachBar<true>(row, FromOrderedBits(LaneOf(best, k - 1)), residents);
}

// Finds the candidates of a row with at least k logits. False where they are too many, or too few
// logits are numbers.
template <size_t kWords>
HWY_INLINE bool FindCandidates(const RowVectors<kWords>& row, size_t num_experts, size_t k,
                               const RowResidents<kWords>& residents, RowCandidates& candidates) {
  // Half as many columns are enough for half as many choices.
  const IntVec columns = OrderedBits(ColumnMaxima(row));
  const IntVec best_columns = k <= 4 ? BestEightOfHalves(columns) : BestEight(columns);
  const FloatVec bar = FromOrderedBits(LaneOf(best_columns, k - 1));
  RowBits<kWords> bits = residents.are_preferred ? ReachBar<true>(row, bar, residents)
                                                 : ReachBar<false>(row, bar, residents);
  if (HWY_UNLIKELY(bits.count > kLanes) && residents.are_preferred) {
    bits = ReachHighestBar<kWords>(row.data(), num_experts, k, bar, residents);
  }
  // Fewer of a row of NaN; more of one whose bar is -inf, of ties, and of many residents.
  if (HWY_UNLIKELY(bits.count < k || bits.count > kLanes)) return false;
  candidates.max = FromOrderedBits(LaneOf(best_columns, 0));
  candidates.experts = ExpertsOfBits(bits.words);
  candidates.values = ValuesOf(row, candidates.experts, bits.count);
  candidates.count = bits.count;
  candidates.residents = 0;
  if (!residents.are_preferred) return true;
  size_t before = 0;
  for (size_t word = 0; word < kWords; ++word) {
    const auto among = static_cast<uint32_t>(_pext_u64(residents.words[word], bits.words[word]));
    candidates.residents |= among << before;
    before += hwy::PopCount(bits.words[word]);
  }
  return true;
}

#endif  // SWITCHYARD_ROW_REGISTERS

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

// The exact choice of one row: its best experts, best first, whatever the values.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_SELECTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_SELECTION_INL_H_
#undef SWITCHYARD_CPU_ROW_SELECTION_INL_H_
#else
#define SWITCHYARD_CPU_ROW_SELECTION_INL_H_
#endif

#include <cstring>

#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Integers that order as the floats do, -0 below +0. Its own inverse.
template <class D, class DI = hn::RebindToSigned<D>>
HWY_INLINE hn::Vec<DI> OrderedBits(D, hn::Vec<D> x) {
  const DI di;
  const auto bits = hn::BitCast(di, x);
  return hn::Xor(bits, hn::And(hn::BroadcastSignBit(bits), hn::Set(di, 0x7fffffff)));
}

HWY_INLINE IntVec OrderedBits(FloatVec x) { return OrderedBits(FloatTag(), x); }

HWY_INLINE FloatVec FromOrderedBits(IntVec keys) {
  const IntTag d;
  const IntVec flip = hn::And(hn::BroadcastSignBit(keys), hn::Set(d, 0x7fffffff));
  return hn::BitCast(FloatTag(), hn::Xor(keys, flip));
}

constexpr int32_t kLowestFiniteKey = static_cast<int32_t>(0x80800000u);  // -FLT_MAX
constexpr int32_t kHighestFiniteKey = 0x7f7fffff;                        // FLT_MAX

// Candidates of one row in ascending order of their experts, padded to whole vectors.
struct Candidates {
  static constexpr size_t kMax = 64;
  static_assert(kMax >= kMaxTopK);
  HWY_ALIGN int32_t keys[kMax + kLanes];
  HWY_ALIGN int32_t experts[kMax + kLanes];
  size_t count = 0;
};

HWY_INLINE uint64_t MaskBits(hn::Mask<IntTag> mask) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  return uint64_t{mask.raw};  // straight from the register, which compilers make of nothing else
#else
  const IntTag d;
  uint8_t bytes[8] = {0};
  hn::StoreMaskBits(d, mask, bytes);
  uint64_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return bits;
#endif
}

// Writes the `wanted` best candidates to `chosen`, best first: each one's place is the number of
// candidates that outrank it. `count` >= wanted.
HWY_INLINE void RankCandidates(const Candidates& candidates, size_t wanted,
                               int32_t* HWY_RESTRICT chosen) {
  const IntTag d;
  HWY_ALIGN int32_t places[Candidates::kMax + kLanes];
  const size_t count = candidates.count;
  for (size_t i = 0; i < count; i += kLanes) {
    const IntVec key = hn::Load(d, candidates.keys + i);
    const IntVec position = hn::Iota(d, static_cast<int32_t>(i));
    IntVec place = hn::Zero(d);
    const IntVec one = hn::Set(d, 1);
    for (size_t j = 0; j < count; ++j) {
      const IntVec other = hn::Set(d, candidates.keys[j]);
      const auto later = hn::Gt(position, hn::Set(d, static_cast<int32_t>(j)));
      const auto outranked = hn::Or(hn::Gt(other, key), hn::And(later, hn::Eq(other, key)));
      place = hn::IfThenElse(outranked, hn::Add(place, one), place);
    }
    hn::Store(place, d, places + i);
  }
  int32_t by_place[Candidates::kMax];
  for (size_t i = 0; i < count; ++i) by_place[places[i]] = candidates.experts[i];
  std::memcpy(chosen, by_place, wanted * sizeof(int32_t));
}

// Experts of one row whose score is at least `threshold`, as bits; returns how many.
template <typename T>
HWY_INLINE size_t BitsAtLeast(const T* HWY_RESTRICT row, size_t padded, float threshold,
                              uint64_t* HWY_RESTRICT words) {
  const FloatTag d;
  const FloatVec bar = hn::Set(d, threshold);
  size_t count = 0;
  for (size_t begin = 0; begin < padded; begin += 64) {
    uint64_t word = 0;
    const size_t end = HWY_MIN(begin + 64, padded);
    for (size_t i = begin; i < end; i += kLanes) {
      const auto hit = hn::RebindMask(IntTag(), hn::Ge(LoadWidened(row + i), bar));
      word |= MaskBits(hit) << (i - begin);
    }
    words[begin / 64] = word;
    count += hwy::PopCount(word);
  }
  return count;
}

// Turns bits into candidates; at most Candidates::kMax of them.
HWY_INLINE void CollectBits(const float* HWY_RESTRICT row, const uint64_t* HWY_RESTRICT words,
                            size_t padded, Candidates& candidates) {
  const IntTag d;
  size_t count = 0;
  for (size_t begin = 0; begin < padded; begin += 64) {
    for (uint64_t word = words[begin / 64]; word != 0; word &= word - 1) {
      const size_t expert = begin + hwy::Num0BitsBelowLS1Bit_Nonzero64(word);
      std::memcpy(candidates.keys + count, row + expert, sizeof(float));
      candidates.experts[count] = static_cast<int32_t>(expert);
      ++count;
    }
  }
  candidates.count = count;
  for (size_t i = 0; i < count; i += kLanes) {
    const FloatVec value = hn::BitCast(FloatTag(), hn::Load(d, candidates.keys + i));
    hn::Store(OrderedBits(hn::Add(value, hn::Zero(FloatTag()))), d, candidates.keys + i);
  }
}

// The k-th largest of `count` keys, a multiple of kLanes, by halving the range of answers; stops
// early at any value that exactly k keys reach. `reached` tells how many keys reach the result.
HWY_INLINE int32_t KthLargest(const int32_t* HWY_RESTRICT keys, size_t count, size_t k, int64_t low,
                              int64_t high, size_t& reached) {
  const IntTag d;
  const auto count_at_least = [&](int64_t bar) HWY_ATTR {
    const IntVec below = hn::Set(d, static_cast<int32_t>(bar - 1));
    IntVec sum = hn::Zero(d);
    for (size_t i = 0; i < count; i += kLanes) {
      sum = hn::Sub(sum, hn::VecFromMask(d, hn::Gt(hn::Load(d, keys + i), below)));
    }
    return static_cast<size_t>(hn::GetLane(hn::SumOfLanes(d, sum)));
  };
  // Ties at the top need no search.
  reached = count_at_least(high);
  if (reached >= k) return static_cast<int32_t>(high);
  // Invariant: at least k keys reach `low`, fewer reach `high`.
  reached = count_at_least(low);
  while (high - low > 1 && reached != k) {
    const int64_t middle = low + (high - low) / 2;
    const size_t at_least = count_at_least(middle);
    if (at_least >= k) {
      low = middle;
      reached = at_least;
    } else {
      high = middle;
    }
  }
  return static_cast<int32_t>(low);
}

// A value that at least k of the row's scores reach, and few more: the k-th largest of the maxima
// of `kColumns` interleaved columns. Below -FLT_MAX when fewer than k columns have a finite score.
template <size_t kColumns>
HWY_INLINE float ColumnThreshold(const float* HWY_RESTRICT row, size_t padded, size_t k) {
  const FloatTag d;
  const IntTag di;
  HWY_ALIGN int32_t keys[kColumns];
  for (size_t column = 0; column < kColumns; column += kLanes) {
    // Two chains hide the latency of the maximum.
    FloatVec best = hn::Set(d, kMinusInfinity);
    FloatVec other = best;
    size_t i = column;
    for (; i + kColumns < padded; i += 2 * kColumns) {
      best = MaxOfNumbers(hn::LoadU(d, row + i), best);
      other = MaxOfNumbers(hn::LoadU(d, row + i + kColumns), other);
    }
    if (i < padded) best = MaxOfNumbers(hn::LoadU(d, row + i), best);
    best = hn::Add(hn::Max(best, other), hn::Zero(d));
    hn::Store(OrderedBits(best), di, keys + column);
  }
  if constexpr (kColumns > 32) {
    size_t reached;
    const int32_t key = KthLargest(keys, kColumns, k, INT32_MIN + int64_t{1}, INT32_MAX, reached);
    return hn::GetLane(FromOrderedBits(hn::Set(di, key)));
  } else {
    // The smallest key that fewer than k others exceed.
    IntVec answer = hn::Set(di, INT32_MAX);
    for (size_t i = 0; i < kColumns; i += kLanes) {
      const IntVec key = hn::Load(di, keys + i);
      IntVec above = hn::Zero(di);
      for (size_t j = 0; j < kColumns; ++j) {
        above = hn::Sub(above, hn::VecFromMask(di, hn::Gt(hn::Set(di, keys[j]), key)));
      }
      const auto among_best = hn::Lt(above, hn::Set(di, static_cast<int32_t>(k)));
      answer = hn::Min(answer, hn::IfThenElse(among_best, key, hn::Set(di, INT32_MAX)));
    }
    return hn::GetLane(FromOrderedBits(hn::MinOfLanes(di, answer)));
  }
}

// The general choice: no assumption about the values. Writes up to k experts, best first.
HWY_NOINLINE inline size_t SelectAny(const float* HWY_RESTRICT row, size_t padded, size_t k,
                                     int32_t* HWY_RESTRICT chosen) {
  const FloatTag d;
  const IntTag di;
  HWY_ALIGN int32_t keys[kMaxExperts];
  IntVec highest = hn::Set(di, INT32_MIN);
  IntVec ranked = hn::Zero(di);
  const IntVec below_finite = hn::Set(di, kLowestFiniteKey - 1);
  for (size_t i = 0; i < padded; i += kLanes) {
    const IntVec key = OrderedBits(hn::Add(hn::LoadU(d, row + i), hn::Zero(d)));
    hn::Store(key, di, keys + i);
    highest = hn::Max(highest, key);
    ranked = hn::Sub(ranked, hn::VecFromMask(di, hn::Gt(key, below_finite)));
  }
  const auto num_ranked = static_cast<size_t>(hn::GetLane(hn::SumOfLanes(di, ranked)));
  const size_t wanted = HWY_MIN(k, num_ranked);
  if (wanted == 0) return 0;

  size_t reached;
  const int32_t bar = KthLargest(keys, padded, wanted, kLowestFiniteKey,
                                 hn::GetLane(hn::MaxOfLanes(di, highest)), reached);
  // Everything above the bar, and of those at it the lowest ids: there may be too many.
  size_t at_bar = wanted;
  if (reached > wanted) {
    const IntVec bar_vector = hn::Set(di, bar);
    IntVec above = hn::Zero(di);
    for (size_t i = 0; i < padded; i += kLanes) {
      above = hn::Sub(above, hn::VecFromMask(di, hn::Gt(hn::Load(di, keys + i), bar_vector)));
    }
    at_bar = wanted - static_cast<size_t>(hn::GetLane(hn::SumOfLanes(di, above)));
  }
  Candidates candidates;
  for (size_t i = 0; i < padded && candidates.count < wanted; i += kLanes) {
    uint64_t bits = MaskBits(hn::Gt(hn::Load(di, keys + i), hn::Set(di, bar - 1)));
    for (; bits != 0; bits &= bits - 1) {
      const size_t expert = i + hwy::Num0BitsBelowLS1Bit_Nonzero64(bits);
      if (keys[expert] == bar) {
        if (at_bar == 0) continue;
        --at_bar;
      }
      candidates.keys[candidates.count] = keys[expert];
      candidates.experts[candidates.count] = static_cast<int32_t>(expert);
      ++candidates.count;
    }
  }
  RankCandidates(candidates, wanted, chosen);
  return wanted;
}

// The choice of one padded row. Returns how many experts were ranked: k, or fewer where fewer
// scores are above -inf. Should +inf or NaN be among the chosen, the choice means nothing.
HWY_INLINE size_t SelectRow(const float* HWY_RESTRICT row, size_t padded, size_t k,
                            int32_t* HWY_RESTRICT chosen) {
  const FloatTag d;
  const IntTag di;
  Candidates candidates;
  if (padded == kRowPadding) {
    size_t finite = 0;
    for (size_t i = 0; i < padded; i += kLanes) {
      const IntVec key = OrderedBits(hn::Add(hn::LoadU(d, row + i), hn::Zero(d)));
      hn::Store(key, di, candidates.keys + i);
      hn::Store(hn::Iota(di, static_cast<int32_t>(i)), di, candidates.experts + i);
      finite += hwy::PopCount(MaskBits(hn::Gt(key, hn::Set(di, kLowestFiniteKey - 1))));
    }
    candidates.count = padded;
    const size_t wanted = HWY_MIN(k, finite);
    RankCandidates(candidates, wanted, chosen);
    return wanted;
  }
  float threshold = kMinusInfinity;
  if (k <= 8) {
    threshold = ColumnThreshold<16>(row, padded, k);
  } else if (k <= 16 && padded % 32 == 0) {
    threshold = ColumnThreshold<32>(row, padded, k);
  } else if (padded % 64 == 0) {
    threshold = ColumnThreshold<64>(row, padded, k);
  }
  if (threshold > kMinusInfinity) {
    uint64_t words[kMaxExperts / 64];
    if (BitsAtLeast(row, padded, threshold, words) <= Candidates::kMax) {
      CollectBits(row, words, padded, candidates);
      RankCandidates(candidates, k, chosen);
      return k;
    }
  }
  return SelectAny(row, padded, k, chosen);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

// The choice of a block of rows with many experts: a bar for each row that few scores reach, then
// those few, sorted exactly.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_THRESHOLD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_THRESHOLD_INL_H_
#undef SWITCHYARD_CPU_BLOCK_THRESHOLD_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_THRESHOLD_INL_H_
#endif

#include <cstring>

#include "cpu/block_choice-inl.h"
#include "cpu/sorting_networks-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxBlockScores = 1024;

using WideTag = hn::RepartitionToWide<IntTag>;
using WideVec = hn::Vec<WideTag>;

// For each row the k-th greatest of the maxima of kColumns interleaved columns: at least k scores
// reach it. block.size is a multiple of kColumns; k is kUsual as a rule.
template <size_t kColumns, size_t kUsual, typename T>
HWY_INLINE FloatVec RowBars(const BlockScores<T>& block, size_t k) {
  const FloatTag d;
  HWY_ALIGN float maxima[kLanes * kColumns];
  for (size_t row = 0; row < kLanes; ++row) {
    const T* scores = block.row(row);
    // Two chains a column hide the latency of the maximum.
    constexpr size_t kVectors = kColumns / kLanes;
    FloatVec even[kVectors];
    FloatVec odd[kVectors];
    for (size_t v = 0; v < kVectors; ++v) even[v] = odd[v] = hn::Set(d, kMinusInfinity);
    size_t i = 0;
    for (; i + 2 * kColumns <= block.size; i += 2 * kColumns) {
      for (size_t v = 0; v < kVectors; ++v) {
        even[v] = MaxOfNumbers(LoadWidened(scores + i + v * kLanes), even[v]);
        odd[v] = MaxOfNumbers(LoadWidened(scores + i + kColumns + v * kLanes), odd[v]);
      }
    }
    if (i < block.size) {
      for (size_t v = 0; v < kVectors; ++v) {
        even[v] = MaxOfNumbers(LoadWidened(scores + i + v * kLanes), even[v]);
      }
    }
    for (size_t v = 0; v < kVectors; ++v) {
      hn::Store(hn::Max(even[v], odd[v]), d, maxima + row * kColumns + v * kLanes);
    }
  }
  constexpr size_t kList = kColumns / 2;
  FloatVec lists[kColumns];
  for (size_t c = 0; c < kColumns; c += 4) LoadColumns(maxima + c, kColumns, lists + c);
  // Plain minima and maxima: no NaN is left.
  SortList<kList>(d, lists);
  SortList<kList>(d, lists + kList);
  if (k == kUsual) return KthOfTwoLists<kList>(lists, lists + kList, kUsual);
  // A copy, for what is indexed by a variable lies in memory.
  FloatVec copy[kColumns];
  for (size_t i = 0; i < kColumns; ++i) copy[i] = lists[i];
  return KthOfTwoLists<kList>(copy, copy + kList, k);
}

#if HWY_TARGET <= HWY_AVX3_DL && HWY_ARCH_X86

// The positions of one row's scores that reach its bar, ascending.
struct PositionList {
  HWY_ALIGN uint8_t bytes[kMaxBlockScores + 32];     // modulo 256
  int32_t num_up_to[(kMaxBlockScores + 255) / 256];  // of the first 256 scores, the first 512, …
};

// Fills the list; returns how many there are. What lies behind them up to kMaxCount is some
// position of the row too, and past kMaxCount nothing is promised.
template <size_t kMaxCount, typename T>
HWY_INLINE size_t ListAboveBar(const T* HWY_RESTRICT row, size_t size, float bar,
                               PositionList& list) {
  static_assert(kLanes == 16 && kMaxCount <= 32);
  const FloatTag d;
  const hn::ScalableTag<uint8_t> d8;
  const hn::Half<decltype(d8)> half;
  const hn::Half<decltype(half)> quarter;
  const FloatVec bars = hn::Set(d, bar);
  const auto reaches = [&](size_t i) HWY_ATTR { return hn::Ge(LoadWidened(row + i), bars).raw; };
  auto numbers = hn::Iota(d8, 0);
  size_t count = 0;
  for (size_t begin = 0; begin < size;) {
    const size_t end = HWY_MIN(begin + 256, size);
    for (; begin < end; begin += 64) {
      uint64_t bits;
      if (HWY_LIKELY(begin + 64 <= end)) {
        bits = _mm512_kunpackd(_mm512_kunpackw(reaches(begin + 48), reaches(begin + 32)),
                               _mm512_kunpackw(reaches(begin + 16), reaches(begin)));
      } else {
        bits = reaches(begin);
        if (begin + 16 < end) bits |= uint64_t{reaches(begin + 16)} << 16;
        if (begin + 32 < end) bits |= uint64_t{reaches(begin + 32)} << 32;
      }
      // Highway compresses elements of 16 bits at least, which takes twice as many instructions: by
      // these, batches route 4-8 % faster.
      const auto compressed = hn::Vec<decltype(d8)>{_mm512_maskz_compress_epi8(bits, numbers.raw)};
      // Each is stored over the zeros behind the one before, and no more of it than may be wanted:
      // short stores seldom cross into another line.
      const auto first_half = hn::LowerHalf(half, compressed);
      if constexpr (kMaxCount <= 16) {
        hn::StoreU(hn::LowerHalf(quarter, first_half), quarter, list.bytes + count);
      } else {
        hn::StoreU(first_half, half, list.bytes + count);
      }
      count += hwy::PopCount(bits);
      numbers = hn::Add(numbers, hn::Set(d8, 64));
    }
    list.num_up_to[(end - 1) / 256] = static_cast<int32_t>(count);
  }
  return count;
}

// The first kMaxCount positions of a list over rows of `size`.
template <size_t kMaxCount>
HWY_INLINE void UnpackPositions(const PositionList& list, size_t size,
                                uint32_t* HWY_RESTRICT positions) {
  const IntTag d;
  const hn::Rebind<uint8_t, IntTag> d8;
  for (size_t s = 0; s < kMaxCount; s += kLanes) {
    const IntVec slots = hn::Iota(d, static_cast<int32_t>(s));
    IntVec position = hn::PromoteTo(d, hn::LoadU(d8, list.bytes + s));
    for (size_t i = 0; i + 1 < (size + 255) / 256; ++i) {
      const auto later = hn::Gt(slots, hn::Set(d, list.num_up_to[i] - 1));
      position = hn::IfThenElse(later, hn::Add(position, hn::Set(d, 256)), position);
    }
    hn::StoreU(position, d, reinterpret_cast<int32_t*>(positions) + s);
  }
}

#else

// The same for other targets.
struct PositionList {
  uint16_t numbers[kMaxBlockScores];
};

template <size_t kMaxCount, typename T>
HWY_INLINE size_t ListAboveBar(const T* HWY_RESTRICT row, size_t size, float bar,
                               PositionList& list) {
  uint64_t words[kMaxBlockScores / 64];
  BitsAtLeast(row, size, bar, words);
  size_t count = 0;
  for (size_t begin = 0; begin < size; begin += 64) {
    for (uint64_t bits = words[begin / 64]; bits != 0; bits &= bits - 1) {
      const size_t at = begin + hwy::Num0BitsBelowLS1Bit_Nonzero64(bits);
      list.numbers[count++] = static_cast<uint16_t>(at);
    }
  }
  for (size_t i = count; i < kMaxCount; ++i) list.numbers[i] = 0;
  return count;
}

template <size_t kMaxCount>
HWY_INLINE void UnpackPositions(const PositionList& list, size_t,
                                uint32_t* HWY_RESTRICT positions) {
  for (size_t s = 0; s < kMaxCount; ++s) positions[s] = list.numbers[s];
}

#endif

// Orders like (score, lower position first), -0 equal to +0: the score's bits above, the
// complement of the position below, turned into a two's complement integer. In `pairs` the position
// itself lies below the score.
HWY_INLINE WideVec OrderedPairs(WideVec pairs) {
  const WideTag d;
  pairs = hn::Xor(pairs, hn::Set(d, 0xffffffff));
  const WideVec sign = hn::ShiftRight<63>(pairs);
  const WideVec flip = hn::And(sign, hn::Set(d, 0x7fffffff00000000));
  const WideVec borrow = hn::And(sign, hn::Set(d, static_cast<int64_t>(0xffffffff00000000u)));
  return hn::Sub(hn::Xor(pairs, flip), borrow);
}

// Sorts the candidates of half a block, greatest first. candidates[s * kLanes + r] is candidate s
// of row r; those past counts[r] do not exist.
template <size_t kKeep, size_t kMaxCount>
HWY_INLINE void SortCandidates(const uint64_t* HWY_RESTRICT candidates,
                               const int64_t* HWY_RESTRICT counts, WideVec* sorted) {
  static_assert(kMaxCount == 2 * kKeep || kMaxCount == kKeep);
  const WideTag d;
  WideVec keys[kMaxCount];
  const WideVec count = hn::Load(d, counts);
  for (size_t s = 0; s < kMaxCount; ++s) {
    const WideVec pair = hn::Load(d, reinterpret_cast<const int64_t*>(candidates) + s * kLanes);
    const auto exists = hn::Gt(count, hn::Set(d, static_cast<int64_t>(s)));
    keys[s] = hn::IfThenElse(exists, OrderedPairs(pair), hn::Set(d, INT64_MIN));
  }
  SortList<kKeep>(d, keys);
  if constexpr (kMaxCount > kKeep) {
    WideVec unused;
    SortList<kKeep>(d, keys + kKeep);
    MergeTop<kKeep, false>(d, keys, keys + kKeep, unused);
  }
  for (size_t i = 0; i < kKeep; ++i) sorted[i] = keys[i];
}

HWY_INLINE uint32_t WidenedBits(const float* p) {
  uint32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}
HWY_INLINE uint32_t WidenedBits(const BFloat16* p) { return uint32_t{p->bits} << 16; }

// top_k <= kKeep, 4, 8 or 16. block.size is a multiple of kColumns and at most kMaxBlockScores. A
// row where more than kMaxCount scores reach the bar is left unsure.
template <size_t kColumns, size_t kKeep, size_t kMaxCount, typename T>
HWY_INLINE void ChooseByThreshold(const BlockScores<T>& block, size_t top_k, BlockChoice& choice) {
  const FloatTag d;
  const IntTag di;
  HWY_ALIGN float bars[kLanes];
  hn::Store(RowBars<kColumns, kKeep>(block, top_k), d, bars);

  HWY_ALIGN int64_t counts[kLanes];
  HWY_ALIGN uint64_t candidates[kMaxCount * kLanes];
  PositionList lists[kLanes];
  for (size_t row = 0; row < kLanes; ++row) {
    PrefetchRow(block.row(row), block.ahead, block.size * sizeof(T));
    counts[row] = static_cast<int64_t>(
        ListAboveBar<kMaxCount>(block.row(row), block.size, bars[row], lists[row]));
  }
  // In a loop of its own, so that the lists are written when they are read.
  for (size_t row = 0; row < kLanes; ++row) {
    const T* scores = block.row(row);
    HWY_ALIGN uint32_t positions[HWY_MAX(kMaxCount, kLanes)];
    UnpackPositions<kMaxCount>(lists[row], block.size, positions);
    for (size_t s = 0; s < kMaxCount; ++s) {
      const uint32_t position = positions[s];
      candidates[s * kLanes + row] = uint64_t{WidenedBits(scores + position)} << 32 | position;
    }
  }

  WideVec low_rows[kKeep];
  WideVec high_rows[kKeep];
  SortCandidates<kKeep, kMaxCount>(candidates, counts, low_rows);
  SortCandidates<kKeep, kMaxCount>(candidates + kLanes / 2, counts + kLanes / 2, high_rows);
  FloatVec last = hn::Zero(d);
  for (size_t j = 0; j < kKeep && j < top_k; ++j) {
    const IntVec low = hn::BitCast(di, low_rows[j]);
    const IntVec high = hn::BitCast(di, high_rows[j]);
    choice.positions[j] = hn::Not(hn::ConcatEven(di, high, low));
    // Negative scores were turned into two's complement.
    const IntVec key = hn::ConcatOdd(di, high, low);
    const IntVec sign = hn::BroadcastSignBit(key);
    const IntVec magnitude = hn::Sub(hn::Xor(key, sign), sign);
    choice.scores[j] = hn::BitCast(
        d, hn::Or(magnitude, hn::And(sign, hn::Set(di, static_cast<int32_t>(0x80000000u)))));
    last = choice.scores[j];
  }
  uint64_t unsure = LaneBits(hn::Not(hn::And(IsFiniteMask(choice.scores[0]), IsFiniteMask(last))));
  for (size_t row = 0; row < kLanes; ++row) {
    const bool fits = counts[row] >= static_cast<int64_t>(top_k) &&
                      counts[row] <= static_cast<int64_t>(kMaxCount);
    unsure |= uint64_t{!fits} << row;
  }
  choice.unsure = unsure;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

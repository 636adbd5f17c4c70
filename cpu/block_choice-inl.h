// The choice of a block of kLanes rows at once, by one of two methods.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_CHOICE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_CHOICE_INL_H_
#undef SWITCHYARD_CPU_BLOCK_CHOICE_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_CHOICE_INL_H_
#endif

#include <bit>

#include "cpu/block_transpose-inl.h"
#include "cpu/row_selection-inl.h"
#include "cpu/sorting_networks-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kMaxBlockTopK = 16;
// Rows up to this long have their denominators summed one row a lane.
constexpr size_t kMaxLaneDenominators = 64;

// Selection scores of kLanes rows, `stride` elements apart: float32, or the caller's bfloat16
// logits.
template <typename T>
struct BlockScores {
  const T* data;
  int64_t stride;
  size_t size;        // scores a row
  int64_t ahead = 0;  // bytes to the rows to fetch from memory meanwhile, 0 for none

  const T* row(size_t i) const { return data + static_cast<int64_t>(i) * stride; }
};

// What a block chose; lane r belongs to row r. Rows whose bit is set in `unsure` hold nothing to be
// believed and are routed on their own; of those in `degenerate`, too, nothing is but -inf or NaN.
struct BlockChoice {
  IntVec positions[kMaxBlockTopK];
  FloatVec scores[kMaxBlockTopK];
  uint64_t unsure;
  uint64_t degenerate = 0;
};

HWY_INLINE uint64_t LaneBits(hn::Mask<FloatTag> mask) {
  return MaskBits(hn::RebindMask(IntTag(), mask));
}

HWY_INLINE hn::Mask<FloatTag> LanesOfBits(uint64_t bits) {
  const IntTag d;
  const IntVec lane = hn::Shl(hn::Set(d, 1), hn::Iota(d, 0));
  return hn::RebindMask(FloatTag(), hn::TestBit(hn::Set(d, static_cast<int32_t>(bits)), lane));
}

// 0, 1, …: to broadcast one of them from memory takes no execution port, unlike from a register.
struct Positions {
  int32_t values[128] = {};
  constexpr Positions() {
    for (int32_t i = 0; i < 128; ++i) values[i] = i;
  }
};
constexpr Positions kPositions;
constexpr size_t kMaxPairScores = sizeof(kPositions.values) / sizeof(int32_t);

// Best and second best of each row by comparing values and carrying positions along. kTopK <= 2,
// block.size at most kMaxPairScores.
template <size_t kTopK, typename T>
HWY_INLINE void ChooseByPairs(const BlockScores<T>& block, BlockChoice& choice) {
  const FloatTag d;
  const IntTag di;
  FloatVec best = hn::Set(d, kMinusInfinity);
  FloatVec second = best;
  IntVec best_at = hn::Zero(di);
  IntVec second_at = hn::Zero(di);
  constexpr size_t kColumns = kColumnsPerLoad<T>;
  for (size_t begin = 0; begin < block.size; begin += kColumns) {
    FloatVec columns[kColumns];
    LoadColumns(block.data + begin, block.stride, columns);
    for (size_t i = 0; i < kColumns; ++i) {
      const FloatVec x = columns[i];
      const IntVec at = hn::Set(di, kPositions.values[begin + i]);
      const auto beats_best = hn::Gt(x, best);
      if constexpr (kTopK == 2) {
        const auto beats_second = hn::Gt(x, second);
        second_at = hn::IfThenElse(hn::RebindMask(di, beats_second), at, second_at);
        second_at = hn::IfThenElse(hn::RebindMask(di, beats_best), best_at, second_at);
        // Not by the masks: the next column waits for a maximum only.
        second = MaxOfNumbers(LesserOrNan(best, x), second);
      }
      best_at = hn::IfThenElse(hn::RebindMask(di, beats_best), at, best_at);
      best = MaxOfNumbers(x, best);
    }
  }
  choice.positions[0] = best_at;
  choice.scores[0] = best;
  FloatVec last = best;
  if constexpr (kTopK == 2) {
    choice.positions[1] = second_at;
    choice.scores[1] = second;
    last = second;
  }
  const auto infinite = hn::Eq(best, hn::Set(d, -kMinusInfinity));
  choice.unsure = LaneBits(hn::Or(infinite, hn::Eq(last, hn::Set(d, kMinusInfinity))));
  if (HWY_UNLIKELY(choice.unsure != 0)) {
    choice.degenerate = LaneBits(hn::Eq(best, hn::Set(d, kMinusInfinity)));
  }
}

// True when no score of the row uses the low bits that keys give up for positions.
HWY_INLINE bool LowBitsUnused(const float* HWY_RESTRICT row, size_t size, int32_t low_bits) {
  int32_t used = 0;
  for (size_t i = 0; i < size; ++i) {
    int32_t bits;
    std::memcpy(&bits, row + i, sizeof(bits));
    used |= bits;
  }
  return (used & low_bits) == 0;
}

// Lists of the greatest keys of each row, one row a lane, and the greatest key left out of them.
template <size_t kList>
struct KeyLists {
  IntVec top[kList];
  IntVec rejected;
};

// `key` with the bits of `low` replaced by those of `bits`, which has no others.
HWY_INLINE IntVec WithLowBits(IntVec low, IntVec bits, IntVec key) {
#if HWY_CAP_GE512
  return hn::IfVecThenElse(low, bits, key);  // one instruction; elsewhere it is for whole lanes
#else
  return hn::Or(hn::AndNot(low, key), bits);
#endif
}

// Fills the lists, eight columns at a time. A key is the score's ordered bits with the lowest ones,
// `low_bits`, replaced by the complement of the position, so one exchange is a max and a min. With
// kPositive the ordered bits are the score's own, which is right for those above 0 and costs less.
template <size_t kList, bool kPositive, typename T>
HWY_INLINE void FillKeyLists(const BlockScores<T>& block, int32_t low_bits,
                             KeyLists<kList>& lists) {
  static_assert(kList == 4 || kList == 8);
  constexpr bool kExact = sizeof(T) == 2;  // the low bits of bfloat16 are free
  const FloatTag d;
  const IntTag di;
  const IntVec low = hn::Set(di, low_bits);
  const IntVec lowest = hn::Set(di, INT32_MIN);
  IntVec rejected = lowest;
  for (size_t begin = 0; begin < block.size; begin += 8) {
    FloatVec columns[8];
    const bool whole = begin + 8 <= block.size;
    if constexpr (kExact) {
      // Half a load at the end of a row: what lies before it is loaded again.
      LoadColumns(block.data + (whole ? begin : begin - 4), block.stride, columns);
      if (!whole) {
        for (size_t i = 0; i < 4; ++i) columns[i] = columns[i + 4];
      }
    } else {
      LoadColumns(block.data + begin, block.stride, columns);
      if (whole) LoadColumns(block.data + begin + 4, block.stride, columns + 4);
    }
    IntVec keys[8];
    for (size_t i = 0; i < 8; ++i) {
      if (i >= 4 && !whole) {
        keys[i] = lowest;
        continue;
      }
      const auto complement = static_cast<int32_t>(static_cast<size_t>(low_bits) - begin - i);
      const IntVec ordered =
          kPositive ? hn::BitCast(di, columns[i]) : OrderedBits(hn::Add(columns[i], hn::Zero(d)));
      keys[i] = WithLowBits(low, hn::Set(di, complement), ordered);
    }
    if constexpr (kList == 8) {
      SortList<8>(di, keys);
    } else {
      SortList<4>(di, keys);
      SortList<4>(di, keys + 4);
      MergeTop<4, !kExact>(di, keys, keys + 4, rejected);
    }
    if (begin == 0) {
      for (size_t i = 0; i < kList; ++i) lists.top[i] = keys[i];
    } else {
      MergeTop<kList, !kExact>(di, lists.top, keys, rejected);
    }
  }
  lists.rejected = rejected;
}

template <size_t kList, typename T>
HWY_NOINLINE void FillKeyListsOfAnySign(const BlockScores<T>& block, int32_t low_bits,
                                        KeyLists<kList>& lists) {
  FillKeyLists<kList, false>(block, low_bits, lists);
}

// One row a lane. What keys without their lowest bits may have confused is found afterwards.
// top_k <= kList; block.size is a multiple of 4, above 4 for bfloat16. `expects_positive` is true
// at first and then what the block before this one made of it.
template <size_t kList, typename T>
HWY_INLINE void ChooseByLanes(const BlockScores<T>& block, size_t top_k, bool& expects_positive,
                              BlockChoice& choice) {
  constexpr bool kExact = sizeof(T) == 2;
  const FloatTag d;
  const IntTag di;
  const auto low_bits = static_cast<int32_t>(std::bit_ceil(block.size) - 1);
  const IntVec low = hn::Set(di, low_bits);
  KeyLists<kList> lists;
  // The best few of many are above 0 as a rule; where one is not, the keys are made again.
  expects_positive &= block.size >= 4 * top_k;
  if (HWY_LIKELY(expects_positive)) {
    FillKeyLists<kList, true>(block, low_bits, lists);
    IntVec last = lists.top[0];
    for (size_t j = 1; j < kList && j < top_k; ++j) last = lists.top[j];
    expects_positive = hn::AllTrue(di, hn::Gt(last, low));
  }
  if (HWY_UNLIKELY(!expects_positive)) FillKeyListsOfAnySign<kList>(block, low_bits, lists);
  const IntVec* const top = lists.top;

  IntVec last = top[0];
  IntVec next = lists.rejected;
  for (size_t j = 1; j < kList; ++j) {
    if (j < top_k) last = top[j];
    if (j == top_k) next = top[j];
  }
  choice.unsure = MaskBits(hn::Or(hn::Gt(top[0], hn::Set(di, kHighestFiniteKey)),
                                  hn::Lt(last, hn::Set(di, kLowestFiniteKey))));
  for (size_t j = 0; j < kList; ++j) choice.positions[j] = hn::AndNot(top[j], low);
  if constexpr (kExact) {
    const IntVec high = hn::Set(di, static_cast<int32_t>(0xffff0000u));
    for (size_t j = 0; j < kList; ++j) {
      const IntVec bits = hn::BitCast(di, FromOrderedBits(top[j]));
      choice.scores[j] = hn::BitCast(d, hn::And(bits, high));
    }
  } else {
    const IntVec rows = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<int32_t>(block.stride)));
    for (size_t j = 0; j < kList && j < top_k; ++j) {
      choice.scores[j] = hn::GatherIndex(d, block.data, hn::Add(rows, choice.positions[j]));
    }
    auto disordered = hn::RebindMask(di, hn::Lt(choice.scores[0], choice.scores[0]));
    for (size_t j = 0; j + 1 < kList && j + 1 < top_k; ++j) {
      const auto rises = hn::Lt(choice.scores[j], choice.scores[j + 1]);
      disordered = hn::Or(disordered, hn::RebindMask(di, rises));
    }
    choice.unsure |= MaskBits(disordered);
    // Where the best one left out differs from the last one kept in its low bits only, the two may
    // be in the wrong order.
    const auto alike = hn::Eq(hn::AndNot(low, next), hn::AndNot(low, last));
    for (uint64_t bits = MaskBits(alike) & ~choice.unsure; bits != 0; bits &= bits - 1) {
      const size_t row = hwy::Num0BitsBelowLS1Bit_Nonzero64(bits);
      if (!LowBitsUnused(block.row(row), block.size, low_bits)) choice.unsure |= uint64_t{1} << row;
    }
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

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

// Selection scores of kLanes rows, `stride` floats apart.
struct BlockScores {
  const float* data;
  int64_t stride;
  size_t size;  // scores a row
};

// What a block chose; lane r belongs to row r. Rows whose bit is set in `unsure` hold nothing to be
// believed and are routed on their own.
struct BlockChoice {
  IntVec positions[kMaxBlockTopK];
  FloatVec scores[kMaxBlockTopK];
  uint64_t unsure;
};

HWY_INLINE uint64_t LaneBits(hn::Mask<FloatTag> mask) {
  return MaskBits(hn::RebindMask(IntTag(), mask));
}

// The greater of x and best, and best where x is NaN.
HWY_INLINE FloatVec MaxOfNumbers(FloatVec x, FloatVec best) {
#if HWY_ARCH_X86
  return hn::Max(x, best);  // the second operand where one is NaN
#else
  return hn::IfThenElse(hn::Gt(x, best), x, best);
#endif
}

// Best and second best of each row by comparing values and carrying positions along. kTopK <= 2.
template <size_t kTopK>
HWY_INLINE void ChooseByPairs(const BlockScores& block, BlockChoice& choice) {
  const FloatTag d;
  const IntTag di;
  FloatVec best = hn::Set(d, kMinusInfinity);
  FloatVec second = best;
  IntVec best_at = hn::Zero(di);
  IntVec second_at = hn::Zero(di);
  for (size_t begin = 0; begin < block.size; begin += 4) {
    FloatVec columns[4];
    LoadFourColumns(block.data + begin, block.stride, columns);
    for (size_t i = 0; i < 4; ++i) {
      const FloatVec x = columns[i];
      const IntVec at = hn::Set(di, static_cast<int32_t>(begin + i));
      const auto beats_best = hn::Gt(x, best);
      if constexpr (kTopK == 2) {
        const auto beats_second = hn::Gt(x, second);
        second_at = hn::IfThenElse(hn::RebindMask(di, beats_second), at, second_at);
        second_at = hn::IfThenElse(hn::RebindMask(di, beats_best), best_at, second_at);
        second = hn::IfThenElse(beats_second, x, second);
        second = hn::IfThenElse(beats_best, best, second);
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

// One row a lane: lists of kList keys absorb eight columns at a time. A key is the score's ordered
// bits with the lowest log2(size) replaced by the complement of the position, so one exchange is a
// max and a min; what that may have confused is found afterwards. top_k <= kList.
template <size_t kList>
HWY_INLINE void ChooseByLanes(const BlockScores& block, size_t top_k, BlockChoice& choice) {
  static_assert(kList == 4 || kList == 8);
  const FloatTag d;
  const IntTag di;
  const auto low_bits = static_cast<int32_t>(std::bit_ceil(block.size) - 1);
  const IntVec low = hn::Set(di, low_bits);
  const IntVec lowest = hn::Set(di, INT32_MIN);
  IntVec top[kList];
  IntVec rejected = lowest;
  for (size_t begin = 0; begin < block.size; begin += 8) {
    IntVec keys[8];
    for (size_t half = 0; half < 8; half += 4) {
      if (begin + half >= block.size) {
        for (size_t i = 0; i < 4; ++i) keys[half + i] = lowest;
        continue;
      }
      FloatVec columns[4];
      LoadFourColumns(block.data + begin + half, block.stride, columns);
      for (size_t i = 0; i < 4; ++i) {
        const IntVec ordered = OrderedBits(hn::Add(columns[i], hn::Zero(d)));
        const auto position = static_cast<int32_t>(begin + half + i);
        keys[half + i] = hn::Or(hn::AndNot(low, ordered), hn::Set(di, low_bits - position));
      }
    }
    if constexpr (kList == 8) {
      SortList<8>(di, keys);
    } else {
      SortList<4>(di, keys);
      SortList<4>(di, keys + 4);
      MergeTop<4, true>(di, keys, keys + 4, rejected);
    }
    if (begin == 0) {
      for (size_t i = 0; i < kList; ++i) top[i] = keys[i];
    } else {
      MergeTop<kList, true>(di, top, keys, rejected);
    }
  }

  const IntVec row_offsets = hn::Mul(hn::Iota(di, 0), hn::Set(di, static_cast<int32_t>(block.stride)));
  for (size_t j = 0; j < top_k; ++j) {
    choice.positions[j] = hn::AndNot(top[j], low);
    choice.scores[j] = hn::GatherIndex(d, block.data, hn::Add(row_offsets, choice.positions[j]));
  }
  const IntVec next = top_k < kList ? top[top_k] : rejected;
  const IntVec last = top[top_k - 1];
  auto bad = hn::Or(hn::Gt(top[0], hn::Set(di, kHighestFiniteKey)),
                    hn::Lt(last, hn::Set(di, kLowestFiniteKey)));
  auto confused = hn::Lt(hn::Xor(next, last), hn::Set(di, low_bits + 1));
  confused = hn::And(confused, hn::Gt(hn::Xor(next, last), hn::Set(di, -1)));
  for (size_t j = 0; j + 1 < top_k; ++j) {
    bad = hn::Or(bad, hn::RebindMask(di, hn::Lt(choice.scores[j], choice.scores[j + 1])));
  }
  choice.unsure = MaskBits(bad);
  for (uint64_t rows = MaskBits(confused) & ~choice.unsure; rows != 0; rows &= rows - 1) {
    const size_t row = hwy::Num0BitsBelowLS1Bit_Nonzero64(rows);
    const float* scores = block.data + static_cast<int64_t>(row) * block.stride;
    if (!LowBitsUnused(scores, block.size, low_bits)) choice.unsure |= uint64_t{1} << row;
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

// Blocks of kLanes rows, turned so that each vector holds one column and each lane one row.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_TRANSPOSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_TRANSPOSE_INL_H_
#undef SWITCHYARD_CPU_BLOCK_TRANSPOSE_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_TRANSPOSE_INL_H_
#endif

#include <cstring>
#include <type_traits>

#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Transposes each 4x4 block: lane i of block b of out[c] is lane c of block b of in[i].
HWY_INLINE void TransposeInBlocks(const FloatVec* in, FloatVec* out) {
  const FloatTag d;
  const hn::RepartitionToWide<FloatTag> wide;
  const auto low01 = hn::BitCast(wide, hn::InterleaveLower(d, in[0], in[1]));
  const auto high01 = hn::BitCast(wide, hn::InterleaveUpper(d, in[0], in[1]));
  const auto low23 = hn::BitCast(wide, hn::InterleaveLower(d, in[2], in[3]));
  const auto high23 = hn::BitCast(wide, hn::InterleaveUpper(d, in[2], in[3]));
  out[0] = hn::BitCast(d, hn::InterleaveLower(wide, low01, low23));
  out[1] = hn::BitCast(d, hn::InterleaveUpper(wide, low01, low23));
  out[2] = hn::BitCast(d, hn::InterleaveLower(wide, high01, high23));
  out[3] = hn::BitCast(d, hn::InterleaveUpper(wide, high01, high23));
}

// 16 bytes of each of rows 0, 4, 8, … below `p`, `stride` bytes apart, one row a 128-bit block.
HWY_INLINE FloatVec LoadBlocks(const uint8_t* p, int64_t stride) {
  const FloatTag d;
  const auto at = [&](int64_t row)
                      HWY_ATTR { return reinterpret_cast<const float*>(p + row * stride); };
  if constexpr (kLanes == 4) {
    return hn::LoadU(d, at(0));
  } else {
    const hn::Half<FloatTag> half;
    if constexpr (kLanes == 8) {
      return hn::Combine(d, hn::LoadU(half, at(4)), hn::LoadU(half, at(0)));
    } else {
      const hn::Half<hn::Half<FloatTag>> quarter;
      const auto low = hn::Combine(half, hn::LoadU(quarter, at(4)), hn::LoadU(quarter, at(0)));
      const auto high = hn::Combine(half, hn::LoadU(quarter, at(12)), hn::LoadU(quarter, at(8)));
      return hn::Combine(d, high, low);
    }
  }
}

// Elements of T in a 128-bit block, and so columns loaded at once.
template <typename T>
constexpr size_t kColumnsPerLoad = 16 / sizeof(T);

// The first columns of kLanes rows of T, `stride` elements apart, as float32.
template <typename T>
HWY_INLINE void LoadColumns(const T* p, int64_t stride, FloatVec* columns) {
  static_assert(sizeof(T) == 4 || std::is_same_v<T, BFloat16>);
  const auto bytes = reinterpret_cast<const uint8_t*>(p);
  const int64_t stride_bytes = stride * static_cast<int64_t>(sizeof(T));
  FloatVec rows[4];
  for (int64_t i = 0; i < 4; ++i) rows[i] = LoadBlocks(bytes + i * stride_bytes, stride_bytes);
  if constexpr (sizeof(T) == 4) {
    TransposeInBlocks(rows, columns);
  } else {
    // Each 32-bit lane holds two columns, the earlier one below.
    const FloatTag d;
    const hn::RebindToUnsigned<FloatTag> du;
    FloatVec pairs[4];
    TransposeInBlocks(rows, pairs);
    for (size_t i = 0; i < 4; ++i) {
      const auto bits = hn::BitCast(du, pairs[i]);
      columns[2 * i] = hn::BitCast(d, hn::ShiftLeft<16>(bits));
      columns[2 * i + 1] = hn::BitCast(d, hn::And(bits, hn::Set(du, 0xffff0000u)));
    }
  }
}

// Writes the first kCount of four columns as rows of `out`, `stride` elements apart; nothing
// between the rows.
template <size_t kCount, typename T>
HWY_INLINE void StoreFourColumns(const FloatVec* columns, T* HWY_RESTRICT out, int64_t stride) {
  const FloatTag d;
  const hn::CappedTag<float, 4> block;
  FloatVec rows[4];
  TransposeInBlocks(columns, rows);
  HWY_ALIGN float turned[4 * kLanes];
  for (size_t i = 0; i < 4; ++i) hn::Store(rows[i], d, turned + kLanes * i);
  // Row 4 * b + i is block b of rows[i].
  for (size_t row = 0; row < kLanes; ++row) {
    const float* from = turned + kLanes * (row % 4) + row / 4 * 4;
    T* to = out + static_cast<int64_t>(row) * stride;
    if constexpr (kCount == 4) {
      hn::StoreU(hn::Load(block, from), block, reinterpret_cast<float*>(to));
    } else {
      std::memcpy(to, from, kCount * sizeof(T));
    }
  }
}

// Writes `count` columns, at most kMost, as rows of `out`, `stride` elements apart; nothing between
// the rows.
template <size_t kMost, typename T>
HWY_INLINE void StoreColumns(const FloatVec* columns, size_t count, T* HWY_RESTRICT out,
                             int64_t stride) {
  static_assert(sizeof(T) == sizeof(float));
  if (kMost == 1 && stride == 1) {
    hn::StoreU(columns[0], FloatTag(), reinterpret_cast<float*>(out));
    return;
  }
  if (kMost == 2 && count == 2 && stride == 2) {
    hn::StoreInterleaved2(columns[0], columns[1], FloatTag(), reinterpret_cast<float*>(out));
    return;
  }
  for (size_t begin = 0; begin < kMost && begin < count; begin += 4) {
    // What stands in for absent columns is not written.
    FloatVec four[4];
    for (size_t i = 0; i < 4; ++i) four[i] = columns[HWY_MIN(begin + i, kMost - 1)];
    switch (count - begin) {
      case 1:
        StoreFourColumns<1>(four, out + begin, stride);
        break;
      case 2:
        StoreFourColumns<2>(four, out + begin, stride);
        break;
      case 3:
        StoreFourColumns<3>(four, out + begin, stride);
        break;
      default:
        StoreFourColumns<4>(four, out + begin, stride);
        break;
    }
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

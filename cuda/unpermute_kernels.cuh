// The kernel that combines rows: a thread sums a few neighbouring columns of one token over its
// slots, with the rows of several slots on their way at once.
#pragma once

#include "cuda/permutation.cuh"

namespace switchyard::cuda {

// 128 threads of 16 bytes cut the usual hidden sizes into whole parts.
inline constexpr int kUnpermuteThreads = 128;
// Rows on their way to a thread at once.
inline constexpr int kRowsAtOnce = 8;

template <class Rows>
struct UnpermuteArgs {
  Rows rows;
  ConstTensorView gate_weights;  ///< null data: every weight is 1
  TensorView tokens;
  int64_t parts;      ///< of a row, one block each
  int64_t num_items;  ///< parts of all tokens
};

/// Columns of a row as they lie in memory: 16 bytes of them, or one.
template <class Element, int kColumns>
struct Columns;

template <>
struct Columns<float, 4> {
  uint4 bits;
  __device__ void load(const float* from) { bits = load16(from); }
  __device__ void widen_to(float* values) const {
    values[0] = __uint_as_float(bits.x);
    values[1] = __uint_as_float(bits.y);
    values[2] = __uint_as_float(bits.z);
    values[3] = __uint_as_float(bits.w);
  }
};

__device__ __forceinline__ float widen_bits(BFloat16, uint32_t bits) {
  return __uint_as_float(bits << 16);
}

__device__ __forceinline__ float widen_bits(Float16, uint32_t bits) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
}

template <class Element>
struct Columns<Element, 8> {
  uint4 bits;
  __device__ void load(const Element* from) { bits = load16(from); }
  __device__ void widen_to(float* values) const {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[2 * i] = widen_bits(Element{}, words[i] & 0xffffu);
      values[2 * i + 1] = widen_bits(Element{}, words[i] >> 16);
    }
  }
};

template <>
struct Columns<float, 1> {
  float value;
  __device__ void load(const float* from) { value = *from; }
  __device__ void widen_to(float* values) const { values[0] = value; }
};

template <class Element>
struct Columns<Element, 1> {
  Element value;
  __device__ void load(const Element* from) { value = *from; }
  __device__ void widen_to(float* values) const { values[0] = widen_bits(Element{}, value.bits); }
};

/// Rounds to 16 bits of `dtype`; every NaN becomes the canonical one.
__device__ __forceinline__ uint32_t rounded_bits(DataType dtype, float value) {
  if (value != value) return dtype == DataType::kFloat16 ? 0x7e00u : 0x7fc0u;
  return dtype == DataType::kFloat16 ? to_float16(value).bits : to_bfloat16(value).bits;
}

__device__ __forceinline__ uint32_t canonical_bits(float value) {
  return value != value ? 0x7fc00000u : __float_as_uint(value);
}

__device__ __forceinline__ uint32_t rounded_pair(DataType dtype, const float* values) {
  return rounded_bits(dtype, values[0]) | rounded_bits(dtype, values[1]) << 16;
}

/// Stores the columns from `column` on, by the widest accesses that they fill.
template <int kColumns>
__device__ __forceinline__ void store_columns(const TensorView& tokens, int64_t token,
                                              int64_t column, const float* sums) {
  const int64_t index = token * tokens.row_stride + column;
  if (tokens.dtype == DataType::kFloat32) {
    uint32_t* to = static_cast<uint32_t*>(tokens.data) + index;
    if constexpr (kColumns == 1) {
      *to = canonical_bits(sums[0]);
    } else {
#pragma unroll
      for (int i = 0; i < kColumns; i += 4) {
        store16(to + i, {canonical_bits(sums[i]), canonical_bits(sums[i + 1]),
                         canonical_bits(sums[i + 2]), canonical_bits(sums[i + 3])});
      }
    }
    return;
  }
  const DataType dtype = tokens.dtype;
  uint16_t* to = static_cast<uint16_t*>(tokens.data) + index;
  if constexpr (kColumns == 1) {
    *to = static_cast<uint16_t>(rounded_bits(dtype, sums[0]));
  } else if constexpr (kColumns == 4) {
    store_vector(reinterpret_cast<uint2*>(to),
                 uint2{rounded_pair(dtype, sums), rounded_pair(dtype, sums + 2)});
  } else {
    store16(to, {rounded_pair(dtype, sums), rounded_pair(dtype, sums + 2),
                 rounded_pair(dtype, sums + 4), rounded_pair(dtype, sums + 6)});
  }
}

/// Adds the slots whose bits `present` has, in order. The rows' places and weights are in the
/// lanes.
template <class Element, int kColumns, class Rows>
__device__ __forceinline__ void add_slots(const Rows& slots, int64_t place_here, float weight_here,
                                          uint32_t present, int64_t column, float* sums) {
  const int64_t bytes = column * static_cast<int64_t>(sizeof(Element));
  while (present != 0) {
    Columns<Element, kColumns> rows[kRowsAtOnce];
    float weights[kRowsAtOnce];
    const int count = min(__popc(present), kRowsAtOnce);
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      if (i >= count) continue;  // for the whole warp
      const int lane = __ffs(static_cast<int>(present)) - 1;
      present &= present - 1;
      weights[i] = __shfl_sync(kAllLanes, weight_here, lane);
      const int64_t place = __shfl_sync(kAllLanes, place_here, lane);
      rows[i].load(reinterpret_cast<const Element*>(slots.at(place, bytes)));
    }
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      if (i >= count) continue;
      float values[kColumns];
      rows[i].widen_to(values);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) sums[j] = __fmaf_rn(weights[i], values[j], sums[j]);
    }
  }
}

template <class Element, int kColumns, class Rows>
__global__ void __launch_bounds__(kUnpermuteThreads) unpermute_kernel(UnpermuteArgs<Rows> args) {
  for (int64_t item = blockIdx.x; item < args.num_items; item += gridDim.x) {
    const int64_t token = item / args.parts;
    const int64_t thread = (item - token * args.parts) * kUnpermuteThreads + threadIdx.x;
    const int64_t last = args.tokens.cols - kColumns;
    const int64_t column = thread * kColumns;
    const int64_t from = min(column, last);  // lanes behind the row work for nobody
    float sums[kColumns] = {};
    for (int64_t first = 0; first < args.rows.top_k(); first += kWarpSize) {
      const int64_t place = place_of_lane(args.rows, token, first);
      const float weight =
          place >= 0 ? gate_weight_at(args.gate_weights, token, first + lane_index()) : 0.0f;
      const uint32_t present = __ballot_sync(kAllLanes, place >= 0);
      add_slots<Element, kColumns>(args.rows, place, weight, present, from, sums);
    }
    if (column <= last) store_columns<kColumns>(args.tokens, token, column, sums);
  }
}

}  // namespace switchyard::cuda

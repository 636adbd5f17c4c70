// What the kernels of permutation have in common.
#pragma once

#include "cuda/threads.cuh"
#include "switchyard/data_type.h"

namespace switchyard::cuda {

// Where the row of an assignment lies. A place is a number that lanes can hand to each other,
// negative where the assignment has no row.

/// Among the sorted rows; the place is the row's index. Byte is const where rows are read.
template <typename Byte>
struct SortedRows {
  MatrixView<const int64_t> assignment_to_row;
  MatrixView<Byte> sorted;  ///< the stride in bytes

  [[nodiscard]] __device__ __forceinline__ int64_t top_k() const { return assignment_to_row.cols; }
  [[nodiscard]] __device__ __forceinline__ int64_t place_of(int64_t token, int64_t slot) const {
    return assignment_to_row.row(token)[slot];
  }
  /// `bytes` behind the row's start.
  [[nodiscard]] __device__ __forceinline__ Byte* at(int64_t place, int64_t bytes) const {
    return sorted.data + bytes + place * sorted.row_stride;
  }
};

/// At an address of its own; the place is that address, which is far below 2^63.
template <typename Byte>
struct AddressedRows {
  MatrixView<Byte* const> addresses;

  [[nodiscard]] __device__ __forceinline__ int64_t top_k() const { return addresses.cols; }
  [[nodiscard]] __device__ __forceinline__ int64_t place_of(int64_t token, int64_t slot) const {
    const std::byte* const address = addresses.row(token)[slot];
    return address == nullptr ? -1 : reinterpret_cast<int64_t>(address);
  }
  [[nodiscard]] __device__ __forceinline__ Byte* at(int64_t place, int64_t bytes) const {
    return reinterpret_cast<Byte*>(place) + bytes;
  }
};

/// The place of the row of this lane's slot, the one `first` + its index; none behind the last.
template <class Rows>
__device__ __forceinline__ int64_t place_of_lane(const Rows& rows, int64_t token, int64_t first) {
  const int64_t slot = first + lane_index();
  return slot < rows.top_k() ? rows.place_of(token, slot) : -1;
}

/// The gate weight of one slot; 1 where no weights are given.
__device__ __forceinline__ float gate_weight_at(const ConstTensorView& weights, int64_t token,
                                                int64_t slot) {
  return weights.data == nullptr ? 1.0f : element_at(weights, token, slot);
}

}  // namespace switchyard::cuda

// Sorting networks over a few neighbouring lanes of a warp, which find the greatest of many keys.
//
// A list lies over lanes whose indices differ in some bits: each has a part of it, greatest first,
// and the parts follow each other in the order of these bits. Two lists become one across a further
// bit, until all lanes have one list, of a key a lane. So that ends that belong together meet,
// lists run up the lanes where the bit that is next is not set, and down where it is.
#pragma once

#include "cuda/intrinsics.cuh"

namespace switchyard::cuda {

__device__ inline void put_in_order(int& greater, int& lesser) {
  const int first = greater;
  greater = max(first, lesser);
  lesser = min(first, lesser);
}

/// Sorts a lane's keys, greatest first, by Batcher's merging of odds and evens.
template <int kCount>
__device__ void sort_in_lane(int (&keys)[kCount]) {
#pragma unroll
  for (int size = 1; size < kCount; size *= 2) {
#pragma unroll
    for (int distance = size; distance > 0; distance /= 2) {
#pragma unroll
      for (int i = 0; i + distance < kCount; ++i) {
        const bool is_first = i >= distance % size && (i - distance % size) / distance % 2 == 0;
        const bool are_merged = i / (2 * size) == (i + distance) / (2 * size);
        if (is_first && are_merged) put_in_order(keys[i], keys[i + distance]);
      }
    }
  }
}

/// The same for keys that rise and then fall, or the other way round.
template <int kCount>
__device__ void sort_slopes_in_lane(int (&keys)[kCount]) {
#pragma unroll
  for (int distance = kCount / 2; distance > 0; distance /= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if ((i & distance) == 0) put_in_order(keys[i], keys[i + distance]);
    }
  }
}

/// Keeps of each key and one of the lane across `bit` the greater or the lesser.
template <int kCount>
__device__ void exchange(int bit, bool is_mirrored, bool keeps_greater, int (&keys)[kCount]) {
  int others[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    others[i] = __shfl_xor_sync(kAllLanes, keys[is_mirrored ? kCount - 1 - i : i], bit);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    keys[i] = keeps_greater ? max(keys[i], others[i]) : min(keys[i], others[i]);
  }
}

/// Lists over kLanes lanes, of which each holds kCount keys to begin with.
template <int kLanes, int kCount>
struct LaneLists {
  static_assert(kCount <= kLanes);
  /// From this bit up lists are joined whole, until they have kLanes keys.
  static constexpr int kFirstBit = kCount;

  int lane;  ///< of kLanes
  int greatest_dropped = INT32_MIN;

  __device__ explicit LaneLists(int lane_of_row) : lane(lane_of_row) {}

  /// The greatest kLanes keys, one a lane: in the order of the lanes, or where it need not be
  /// `sorted`, in any.
  template <bool kSorted>
  __device__ int greatest(int (&keys)[kCount]) {
    sort_in_lane(keys);
#pragma unroll
    for (int bit = kFirstBit; bit < kLanes; bit *= 2) {
      join(bit, bit, kFirstBit, bit == kLanes / 2 ? kFirstBit / 2 : 2 * bit, keys);
    }
    return halve<kSorted, kFirstBit / 2>(keys);
  }

 private:
  /// Whether of two lanes across `bit` this is the one for the greater keys.
  __device__ bool keeps_greater(int bit, int next_bit) const {
    return ((lane & bit) == 0) == ((lane & next_bit) == 0);
  }

  /// Makes a list over the bits from `high_bit` down to `low_bit` of keys that rise and then fall,
  /// or the other way round. Across `bit`, the newest, the last of a lane meet the first of the
  /// other.
  template <int kNumKeys>
  __device__ void join(int bit, int high_bit, int low_bit, int next_bit, int (&keys)[kNumKeys]) {
#pragma unroll
    for (int i = high_bit; i >= low_bit; i /= 2) {
      exchange(i, i == bit, keeps_greater(i, next_bit), keys);
    }
    sort_slopes_in_lane(keys);
  }

  /// Joins lists of kLanes keys across kBit and the bits below it; of two lists one is kept.
  template <bool kSorted, int kBit, int kNumKeys>
  __device__ int halve(const int (&keys)[kNumKeys]) {
    int kept[kNumKeys / 2];
#pragma unroll
    for (int i = 0; i < kNumKeys / 2; ++i) {
      const int other = __shfl_xor_sync(kAllLanes, keys[kNumKeys - 1 - i], kBit);
      kept[i] = max(keys[i], other);
      greatest_dropped = max(greatest_dropped, min(keys[i], other));
    }
    if constexpr (kBit > 1) {
      join(kBit, kLanes / 2, kBit, kBit / 2, kept);
      return halve<kSorted, kBit / 2>(kept);
    } else {
      if constexpr (kSorted) join(kBit, kLanes / 2, kBit, 0, kept);
      return kept[0];
    }
  }
};

}  // namespace switchyard::cuda

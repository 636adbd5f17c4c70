// Which of many keys a full expert keeps, found by one block: everything above one key, and the
// first few equal to it.
#pragma once

#include "cuda/threads.cuh"

namespace switchyard::cuda {

inline constexpr int kNumDigits = 256;

/// Larger keys are all kept, and of the equal ones the first `ties`.
struct WeightCutoff {
  uint32_t key = 0;
  int64_t ties = 0;
};

struct CutoffScratch {
  uint32_t counters[kNumDigits];
  int64_t warp_sums[kMaxWarps];
  int64_t wanted;
  uint32_t digit;
};

// A tile is a key for each thread of a block; so many are on their way at once.
inline constexpr int kTilesAtOnce = 4;

/// This thread's keys of the tiles from `first` on, 0 behind `end`.
__device__ __forceinline__ void load_tiles(const uint32_t* keys, int64_t first, int64_t end,
                                           uint32_t (&tiles)[kTilesAtOnce]) {
#pragma unroll
  for (int tile = 0; tile < kTilesAtOnce; ++tile) {
    const int64_t i = first + tile * blockDim.x + threadIdx.x;
    tiles[tile] = i < end ? keys[i] : 0;
  }
}

/// How many of the keys that start with `prefix` have the digit 255 - threadIdx.x at `shift`.
__device__ inline int64_t count_digit(const uint32_t* keys, int64_t num_keys, uint32_t prefix,
                                      uint32_t prefix_mask, int shift, uint32_t* counters) {
  // Counters of 32 bits hold this many.
  constexpr int64_t kKeysAtOnce = int64_t{1} << 31;
  int64_t count = 0;
  for (int64_t begin = 0; begin < num_keys; begin += kKeysAtOnce) {
    const int64_t end = min(begin + kKeysAtOnce, num_keys);
    clear_counters(counters, kNumDigits);
    __syncthreads();
    for (int64_t first = begin; first < end; first += kTilesAtOnce * blockDim.x) {
      uint32_t tiles[kTilesAtOnce];
      load_tiles(keys, first, end, tiles);
#pragma unroll
      for (int tile = 0; tile < kTilesAtOnce; ++tile) {
        const int64_t i = first + tile * blockDim.x + threadIdx.x;
        const bool counted = i < end && (tiles[tile] & prefix_mask) == prefix;
        count_key(counters, (tiles[tile] >> shift) & (kNumDigits - 1), counted);
      }
    }
    __syncthreads();
    if (threadIdx.x < kNumDigits) count += counters[kNumDigits - 1 - threadIdx.x];
    __syncthreads();
  }
  return count;
}

/// The cutoff that keeps `capacity` of the keys, by radix selection: the digits from the top, each
/// the one in which the last kept key lies. For whole blocks of kNumDigits threads or more.
__device__ inline WeightCutoff find_weight_cutoff(const uint32_t* keys, int64_t num_keys,
                                                  int64_t capacity, CutoffScratch& scratch) {
  if (capacity >= num_keys) return {0, num_keys};
  if (capacity <= 0) return {UINT32_MAX, 0};
  WeightCutoff cutoff{0, capacity};
  uint32_t prefix_mask = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    const int64_t count =
        count_digit(keys, num_keys, cutoff.key, prefix_mask, shift, scratch.counters);
    int64_t total = 0;
    const int64_t above = block_exclusive_sum(count, scratch.warp_sums, total);
    if (above < cutoff.ties && cutoff.ties <= above + count) {  // in exactly one thread
      scratch.digit = kNumDigits - 1 - threadIdx.x;
      scratch.wanted = cutoff.ties - above;
    }
    __syncthreads();
    cutoff.key |= scratch.digit << shift;
    cutoff.ties = scratch.wanted;
    prefix_mask |= static_cast<uint32_t>(kNumDigits - 1) << shift;
  }
  return cutoff;
}

/// Calls visit(i, key, kept, position) for every key: whether the cutoff keeps it, and how many
/// kept ones there are before it. For whole blocks.
template <class Visit>
__device__ void visit_keys(const uint32_t* keys, int64_t num_keys, const WeightCutoff& cutoff,
                           CutoffScratch& scratch, const Visit& visit) {
  int64_t above = 0;  // before this tile
  int64_t equal = 0;
  for (int64_t first = 0; first < num_keys; first += kTilesAtOnce * blockDim.x) {
    uint32_t tiles[kTilesAtOnce];
    load_tiles(keys, first, num_keys, tiles);
#pragma unroll
    for (int tile = 0; tile < kTilesAtOnce; ++tile) {
      if (first + tile * blockDim.x >= num_keys) break;
      const int64_t i = first + tile * blockDim.x + threadIdx.x;
      const uint32_t key = tiles[tile];
      const bool is_above = i < num_keys && key > cutoff.key;
      const bool is_equal = i < num_keys && key == cutoff.key;
      // Two sums in one: a tile has fewer than 2^32 of either.
      int64_t sums = 0;
      const int64_t before = block_exclusive_sum((is_above ? 1 : 0) + (is_equal ? 1ll << 32 : 0),
                                                 scratch.warp_sums, sums);
      const int64_t equal_before = equal + (before >> 32);
      const int64_t position = above + (before & 0xffffffff) + min(equal_before, cutoff.ties);
      const bool kept = is_above || (is_equal && equal_before < cutoff.ties);
      if (i < num_keys) visit(i, key, kept, position);
      above += sums & 0xffffffff;
      equal += sums >> 32;
    }
  }
}

}  // namespace switchyard::cuda

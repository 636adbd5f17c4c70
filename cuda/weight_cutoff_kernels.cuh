// Dropping by gate weight: each expert's assignments are grouped in order with their weights' keys,
// then one block an expert finds what it keeps and gives that its rows.
#pragma once

#include "cuda/assignment_sort.cuh"

namespace switchyard::cuda {

inline constexpr int kCutThreads = 512;
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
    for (int64_t first = begin; first < end; first += blockDim.x) {
      const int64_t i = first + threadIdx.x;
      const uint32_t key = i < end ? keys[i] : 0;
      const bool counted = i < end && (key & prefix_mask) == prefix;
      count_key(counters, (key >> shift) & (kNumDigits - 1), counted);
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

/// One block gives one expert's assignments their rows.
__global__ void __launch_bounds__(kCutThreads) cut_kernel(SortArgs args) {
  SWITCHYARD_SHARED(CutoffScratch, scratch);
  let_next_grid_start();
  wait_for_previous_grid();
  const uint32_t expert = blockIdx.x;
  const uint32_t* keys = args.group_keys + args.group_begins[expert];
  const int64_t* assignments = args.group_assignments + args.group_begins[expert];
  const int64_t num_keys = args.assigned[expert];
  const WeightCutoff cutoff = find_weight_cutoff(keys, num_keys, args.capacity, scratch);
  int64_t above = 0;  // before this tile
  int64_t equal = 0;
  for (int64_t first = 0; first < num_keys; first += blockDim.x) {
    const int64_t i = first + threadIdx.x;
    const bool is_above = i < num_keys && keys[i] > cutoff.key;
    const bool is_equal = i < num_keys && keys[i] == cutoff.key;
    // Two sums in one: a tile has fewer than 2^32 of either.
    int64_t tile = 0;
    const int64_t before = block_exclusive_sum((is_above ? 1 : 0) + (is_equal ? 1ll << 32 : 0),
                                               scratch.warp_sums, tile);
    const int64_t equal_before = equal + (before >> 32);
    const int64_t position = above + (before & 0xffffffff) + min(equal_before, cutoff.ties);
    if (i < num_keys) {
      const int64_t assignment = assignments[i];
      const int64_t token = assignment / args.top_k;
      const bool kept = is_above || (is_equal && equal_before < cutoff.ties);
      args.out.assignment_to_row.row(token)[assignment - token * args.top_k] =
          kept ? give_row(args, expert, position, assignment) : -1;
    }
    above += tile & 0xffffffff;
    equal += tile >> 32;
  }
}

/// What a token lost is known only when every expert has chosen.
__global__ void __launch_bounds__(kCutThreads) finish_cut_kernel(SortArgs args) {
  wait_for_previous_grid();
  fill_unused(args);
  add_fully_dropped(args, tokens_of_block(args));
}

}  // namespace switchyard::cuda

// A row by half a warp, where the choice is made on the logits, the chosen weights are renormalised
// and nothing else is asked for: one instruction serves two rows. A row with values that are not
// finite, or with too many candidates, is left to route_row().
#pragma once

#include <cfloat>

#include "cuda/row_router.cuh"

namespace switchyard::cuda {

inline constexpr int kHalfWarp = kWarpSize / 2;

/// With more, random rows have more candidates than half a warp takes: about 11 for the best 8, but
/// 16 for the best 10.
inline constexpr int kMaxHalfWarpTopK = 8;

/// Where half a warp keeps a row: a lane holds vectors of 16 bytes.
template <int kPerLane, typename T>
struct HalfRowLayout {
  static constexpr int kVector = sizeof(T) == 2 && kPerLane >= 8 ? 8 : 4;

  __device__ static int expert_of(int element, int lane) {
    return element / kVector * kVector * kHalfWarp + lane * kVector + element % kVector;
  }
};

/// Half a warp's memory. A candidate's logit and expert, later a chosen one's, lie kHalfWarp apart,
/// so that one address serves both.
struct alignas(16) HalfWarpScratch {
  long long keys[kHalfWarp];
  float values[2 * kHalfWarp];

  __device__ static void put(float* at, float logit, int expert) {
    at[0] = logit;
    at[kHalfWarp] = __int_as_float(expert);
  }
  __device__ float logit(int i) const { return values[i]; }
  __device__ int expert(int i) const { return __float_as_int(values[kHalfWarp + i]); }
};

/// Orders candidates, and is far from the ends of 64 bits, so that a difference tells the order.
__device__ inline long long small_candidate_of(float logit, int expert) {
  static_assert(kMaxExperts <= 2048);
  return static_cast<long long>(ordered_bits(logit)) << 11 | (2047 - expert);
}

/// Loads a row, widened; what lies behind it is -FLT_MAX.
template <int kPerLane, typename T>
__device__ void load_half_row(const T* row, int num_experts, int lane, float (&x)[kPerLane]) {
  using Layout = HalfRowLayout<kPerLane, T>;
  using Packed = PackedElements<T, Layout::kVector>;
#pragma unroll
  for (int element = 0; element < kPerLane; element += Layout::kVector) {
    const int expert = Layout::expert_of(element, lane);
    if (expert < num_experts) {
      const Packed packed = load_vector(reinterpret_cast<const Packed*>(row + expert));
#pragma unroll
      for (int j = 0; j < Layout::kVector; ++j) x[element + j] = widen(packed.values[j]);
    } else {
#pragma unroll
      for (int j = 0; j < Layout::kVector; ++j) x[element + j] = -FLT_MAX;
    }
  }
}

/// The half warp's values in descending order of lanes.
__device__ inline float sorted_by_lane(float value, int lane) {
#pragma unroll
  for (int size = 2; size <= kHalfWarp; size *= 2) {
#pragma unroll
    for (int distance = size / 2; distance > 0; distance /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, value, distance);
      const bool descends = size == kHalfWarp || (lane & size) == 0;
      const bool takes_larger = ((lane & distance) == 0) == descends;
      value = takes_larger ? fmaxf(value, other) : fminf(value, other);
    }
  }
  return value;
}

/// Sum of the lanes' values up to and with this one; in `total` of all.
__device__ inline int half_warp_inclusive_sum(int value, int lane, int& total) {
#pragma unroll
  for (int distance = 1; distance < kHalfWarp; distance *= 2) {
    const int before = __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(distance), kHalfWarp);
    value += lane >= distance ? before : 0;
  }
  total = __shfl_sync(kAllLanes, value, kHalfWarp - 1, kHalfWarp);
  return value;
}

/// Routes `token`, one for each half of the warp; both halves call it, with `is_row` false where
/// there is none. Returns whether the row is left, and nothing of it written.
template <int kPerLane, typename T>
__device__ bool route_row_by_half_warp(const RouteTask& task, const BlockTally& tally,
                                       int64_t token, bool is_row, HalfWarpScratch& scratch) {
  const int lane = lane_index() % kHalfWarp;
  const int top_k = task.config.top_k;
  float x[kPerLane];
  load_half_row(task.logits.as<T>().row(is_row ? token : 0), task.config.num_experts, lane, x);
  float best = x[0];
  float zeros = 0.0f;  // NaN once a logit is not finite
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    best = fmaxf(best, x[i]);
    zeros = __fmaf_rn(x[i], 0.0f, zeros);
  }
  const unsigned finite = __ballot_sync(kAllLanes, zeros == 0.0f ? 1 : 0);
  const unsigned half = 0xffffu << (lane_index() - lane);
  // At least top_k lanes reach the bar.
  const float bar = __shfl_sync(kAllLanes, sorted_by_lane(best, lane), top_k - 1, kHalfWarp);
  float ones = 0.0f;  // a float, since comparisons can put out one and not an integer
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) ones += x[i] >= bar ? 1.0f : 0.0f;
  const auto reached = static_cast<int>(ones);
  int count = 0;
  const int place = half_warp_inclusive_sum(reached, lane, count) - reached;
  // At -FLT_MAX what lies behind the row would be a candidate.
  const bool is_left = (finite & half) != half || bar == -FLT_MAX || count > kHalfWarp;
  const bool is_routed = is_row && !is_left;
  if (is_routed && reached > 0) {
    float* next = scratch.values + place;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (x[i] < bar) continue;
      HalfWarpScratch::put(next, x[i], HalfRowLayout<kPerLane, T>::expert_of(i, lane));
      ++next;
    }
  }
  __syncwarp();

  const bool is_candidate = is_routed && lane < count;
  float logit = 0.0f;
  int expert = 0;
  long long mine = 0;
  if (is_candidate) {
    logit = scratch.logit(lane);
    expert = scratch.expert(lane);
    mine = small_candidate_of(logit, expert);
  }
  scratch.keys[lane] = mine;
  __syncwarp();
  int rank = 0;
#pragma unroll
  for (int other = 0; other < kHalfWarp; ++other) {
    rank += static_cast<int>(static_cast<unsigned long long>(mine - scratch.keys[other]) >> 63);
  }
  if (is_candidate && rank < top_k) HalfWarpScratch::put(scratch.values + rank, logit, expert);
  __syncwarp();

  const bool is_chosen = is_routed && lane < top_k;
  float term = 0.0f;
  if (is_chosen) term = numerics::exp(scratch.logit(lane) - scratch.logit(0));
  float total = term;
#pragma unroll
  for (int distance = kHalfWarp / 2; distance > 0; distance /= 2) {
    total += __shfl_xor_sync(kAllLanes, total, distance);
  }
  if (is_chosen) {
    store_choice(task, tally, token, lane, scratch.expert(lane),
                 term / total * task.config.routed_scaling_factor);
  }
  __syncwarp();  // the next row takes the same memory
  return is_row && is_left;
}

}  // namespace switchyard::cuda

// Group-limited choice for one row: which groups of experts stay.
#pragma once

#include <cfloat>

#include "cuda/intrinsics.cuh"
#include "cuda/row_candidates.cuh"
#include "cuda/row_inputs.cuh"
#include "cuda/row_selection.cuh"

namespace switchyard::cuda {

/// A warp's memory while it limits groups: a row of keys and one key a group.
struct GroupScratch {
  uint32_t* row;     ///< [num_experts]
  uint32_t* groups;  ///< [num_groups]
};

/// A group's sum as a finite score, so that it ranks above groups without a ranked member.
__device__ inline float bounded_group_sum(float sum) {
  // Not clamped by minimum and maximum: opposed infinities within the tree make a NaN, which counts
  // as the least score.
  return sum >= -FLT_MAX ? (sum <= FLT_MAX ? sum : FLT_MAX) : -FLT_MAX;
}

/// The key of a group's sum: 1 at least.
__device__ inline uint32_t key_of_group_sum(float sum) {
  return ordered_key(bounded_group_sum(sum));
}

/// The sum of the one or two best keys of a group, by one lane.
__device__ inline uint32_t score_small_group(const uint32_t* keys, int size, int terms) {
  uint32_t best = 0;
  uint32_t second = 0;
  for (int i = 0; i < size; ++i) {
    const uint32_t key = keys[i];
    const uint32_t loser = key > best ? best : key;
    best = key > best ? key : best;
    second = loser > second ? loser : second;
  }
  if (best == 0) return 0;
  const bool both = terms > 1 && second != 0;
  return key_of_group_sum(both ? float_of_key(best) + float_of_key(second) : float_of_key(best));
}

/// The sum of the `terms` best keys of a group by the contract's tree, by the whole warp.
__device__ inline uint32_t score_large_group(const uint32_t* keys, int size, int terms,
                                             SelectionScratch& scratch) {
  const int count = select_best(SharedKeys{keys, size}, terms, scratch);
  if (count == 0) return 0;
  const int lane = lane_index();
  float sum = lane < count ? float_of_key(key_of(scratch.sorted[lane])) : 0.0f;
  if (lane + kWarpSize < count) sum += float_of_key(key_of(scratch.sorted[lane + kWarpSize]));
  return key_of_group_sum(fold_lanes(sum));
}

/// Sets all but the best `wanted` keys to 0; of equal ones the first stay.
__device__ inline void keep_best_groups(int wanted, int num_groups, uint32_t* groups) {
  const SharedKeys keys{groups, num_groups};
  int reached = count_at_least(keys, 1u);
  if (reached <= wanted) return;
  uint32_t bar = 1;
  unsigned long long high = 1ull << 32;
  while (reached != wanted && high - bar > 1) {
    const auto middle = static_cast<uint32_t>(bar + (high - bar) / 2);
    const int at_middle = count_at_least(keys, middle);
    if (at_middle >= wanted) {
      bar = middle;
      reached = at_middle;
    } else {
      high = middle;
    }
  }
  int ties_left = wanted - (reached == wanted ? 0 : count_at_least(keys, bar + 1));
  for (int chunk = 0; chunk < keys.chunks(); ++chunk) {
    const int group = keys.id(chunk, 0);
    const uint32_t key = keys.key(chunk, 0);
    const bool tie = reached != wanted && key == bar;
    const unsigned ties = __ballot_sync(kAllLanes, tie ? 1 : 0);
    const bool stays = tie ? __popc(ties & lanes_before()) < ties_left : key >= bar;
    if (group < num_groups && !stays) groups[group] = 0;
    ties_left -= __popc(ties);
  }
  __syncwarp();
}

/// Sets the keys of experts outside the best `top_groups` groups to 0.
template <int kPerLane>
__device__ void limit_to_best_groups(const RouteTask& task, const GroupScratch& memory,
                                     SelectionScratch& scratch, uint32_t (&keys)[kPerLane]) {
  const int num_experts = task.config.num_experts;
  const int num_groups = task.config.num_groups;
  const int group_size = num_experts / num_groups;
  const int lane = lane_index();
  __syncwarp();  // the row before may still be read
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = RowLayout<kPerLane>::expert_of(i, lane);
    if (expert < num_experts) memory.row[expert] = keys[i];
  }
  __syncwarp();
  if (task.group_terms <= 2) {
    for (int group = lane; group < num_groups; group += kWarpSize) {
      memory.groups[group] =
          score_small_group(memory.row + group * group_size, group_size, task.group_terms);
    }
  } else {
    for (int group = 0; group < num_groups; ++group) {
      const uint32_t key =
          score_large_group(memory.row + group * group_size, group_size, task.group_terms, scratch);
      if (lane == 0) memory.groups[group] = key;
    }
  }
  __syncwarp();
  keep_best_groups(task.config.top_groups, num_groups, memory.groups);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = RowLayout<kPerLane>::expert_of(i, lane);
    if (expert < num_experts && memory.groups[expert / group_size] == 0) keys[i] = 0;
  }
}

struct BestTwo {
  float best;
  float second;
};

__device__ inline BestTwo best_two(const BestTwo& a, const BestTwo& b) {
  return {fmaxf(a.best, b.best), fmaxf(fminf(a.best, b.best), fmaxf(a.second, b.second))};
}

/// Of kCount values from kFirst on, none of which is NaN.
template <int kFirst, int kCount, int kPerLane>
__device__ BestTwo best_two(const float (&x)[kPerLane]) {
  if constexpr (kCount == 1) {
    return {x[kFirst], minus_infinity()};
  } else {
    return best_two(best_two<kFirst, kCount / 2>(x), best_two<kFirst + kCount / 2, kCount / 2>(x));
  }
}

/// Sets the values of experts outside the best `top_groups` groups to -inf, where a group is
/// 2^task.group_lanes neighbouring lanes and one or two terms score it.
template <int kPerLane>
__device__ void limit_to_best_lanes(const RouteTask& task, CandidateScratch& scratch,
                                    float (&x)[kPerLane]) {
  const int lane = lane_index();
  const int num_groups = task.config.num_groups;
  const int lanes = 1 << task.group_lanes;
  const int group = lane >> task.group_lanes;
  BestTwo two = best_two<0, kPerLane>(x);
#pragma unroll 1
  for (int distance = 1; distance < lanes; distance *= 2) {
    two = best_two(two, {__shfl_xor_sync(kAllLanes, two.best, distance),
                         __shfl_xor_sync(kAllLanes, two.second, distance)});
  }
  const bool both = task.group_terms > 1 && two.second > minus_infinity();
  const float sum = bounded_group_sum(both ? two.best + two.second : two.best);
  const float score = two.best > minus_infinity() ? sum : minus_infinity();
  if (lane >= num_groups) scratch.maxima[lane] = minus_infinity();
  if (group < num_groups && (lane & (lanes - 1)) == 0) scratch.maxima[group] = score;
  __syncwarp();
  int before = 0;
  const float below = next_below(score);
#pragma unroll 1
  for (int first = 0; first < num_groups; first += kComparedAtOnce) {
    before += ComparedValues(scratch.maxima + first).count_before(score, below, group - first);
  }
  __syncwarp();
  const bool stays = before < task.config.top_groups;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) x[i] = stays ? x[i] : minus_infinity();
}

}  // namespace switchyard::cuda

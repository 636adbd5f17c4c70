// The exact choice of a warp: the best of many keys, best first, whatever the values.
#pragma once

#include "cuda/intrinsics.cuh"
#include "cuda/row_inputs.cuh"

namespace switchyard::cuda {

/// Candidates that are ranked against one another at most.
inline constexpr int kMaxCandidates = 64;
static_assert(kMaxCandidates >= kMaxTopK && kMaxCandidates == 2 * kWarpSize);

/// A warp's memory while it chooses.
struct alignas(16) SelectionScratch {
  unsigned long long candidates[kMaxCandidates];
  unsigned long long sorted[kMaxCandidates];
};

/// One integer that orders candidates: higher keys first, then lower ids.
__device__ inline unsigned long long candidate_of(uint32_t key, int id) {
  return static_cast<unsigned long long>(key) << 32 | ~static_cast<uint32_t>(id);
}
__device__ inline uint32_t key_of(unsigned long long candidate) {
  return static_cast<uint32_t>(candidate >> 32);
}
__device__ inline int id_of(unsigned long long candidate) {
  return static_cast<int>(~static_cast<uint32_t>(candidate));
}

/// Keys in the registers of a warp.
template <int kPerLane>
struct RegisterKeys {
  static constexpr int kVector = RowLayout<kPerLane>::kVector;
  const uint32_t (&keys)[kPerLane];

  __device__ static constexpr int chunks() { return RowLayout<kPerLane>::kChunks; }
  __device__ uint32_t key(int chunk, int j) const { return keys[chunk * kVector + j]; }
  __device__ static int id(int chunk, int j) {
    return RowLayout<kPerLane>::expert_of(chunk * kVector + j, lane_index());
  }
};

/// `count` keys in shared memory.
struct SharedKeys {
  static constexpr int kVector = 1;
  const uint32_t* keys;
  int count;

  __device__ int chunks() const { return (count + kWarpSize - 1) / kWarpSize; }
  __device__ uint32_t key(int chunk, int j) const {
    const int index = id(chunk, j);
    return index < count ? keys[index] : 0u;
  }
  __device__ static int id(int chunk, int) { return chunk * kWarpSize + lane_index(); }
};

/// How many keys of the warp are at least `bar`, in every lane.
template <typename Keys>
__device__ int count_at_least(const Keys& keys, uint32_t bar) {
  int count = 0;
#pragma unroll
  for (int chunk = 0; chunk < keys.chunks(); ++chunk) {
#pragma unroll
    for (int j = 0; j < Keys::kVector; ++j) count += keys.key(chunk, j) >= bar ? 1 : 0;
  }
  return __reduce_add_sync(kAllLanes, count);
}

template <typename Keys>
__device__ uint32_t lane_max(const Keys& keys) {
  uint32_t best = 0;
#pragma unroll
  for (int chunk = 0; chunk < keys.chunks(); ++chunk) {
#pragma unroll
    for (int j = 0; j < Keys::kVector; ++j) {
      const uint32_t key = keys.key(chunk, j);
      best = key > best ? key : best;
    }
  }
  return best;
}

/// A bar that at least `wanted` keys reach, and few more: the wanted-th largest of the lanes' best
/// keys, or 1 where fewer lanes have a key.
__device__ inline uint32_t bar_of_lanes(uint32_t best, int wanted) {
  uint32_t bar = 1;
  if (wanted > kWarpSize) return bar;
  for (int i = 0; i < wanted; ++i) {
    bar = __reduce_max_sync(kAllLanes, best);
    // Equal ones leave together: the bar is lower then, and still one that enough keys reach.
    if (best == bar) best = 0;
  }
  return bar > 0 ? bar : 1;
}

/// Where the candidates of a row begin: all keys above `bar`, and the first `num_ties` at it.
struct CandidateRange {
  uint32_t bar;
  int count;     ///< candidates
  int num_ties;  ///< of them at the bar; only where `limits_ties`
  bool limits_ties;
};

/// Finds at least `wanted` candidates, which exist, and at most kMaxCandidates.
template <typename Keys>
__device__ CandidateRange find_candidates(const Keys& keys, uint32_t low, int at_low, int wanted) {
  // Halves the range of bars. At least `wanted` keys reach `low`, fewer reach `high`.
  unsigned long long high = 1ull << 32;
  while (at_low > kMaxCandidates && high - low > 1) {
    const auto middle = static_cast<uint32_t>(low + (high - low) / 2);
    const int at_middle = count_at_least(keys, middle);
    if (at_middle >= wanted) {
      low = middle;
      at_low = at_middle;
    } else {
      high = middle;
    }
  }
  if (at_low <= kMaxCandidates) return {low, at_low, 0, false};
  const int above = low == 0xffffffffu ? 0 : count_at_least(keys, low + 1);
  return {low, wanted, wanted - above, true};
}

/// Writes all keys that reach the bar to scratch.candidates, in any order.
template <typename Keys>
__device__ void gather(const Keys& keys, uint32_t bar, SelectionScratch& scratch) {
  int base = 0;
#pragma unroll
  for (int chunk = 0; chunk < keys.chunks(); ++chunk) {
#pragma unroll
    for (int j = 0; j < Keys::kVector; ++j) {
      const uint32_t key = keys.key(chunk, j);
      const unsigned hits = __ballot_sync(kAllLanes, key >= bar ? 1 : 0);
      if (key >= bar) {
        scratch.candidates[base + __popc(hits & lanes_before())] =
            candidate_of(key, keys.id(chunk, j));
      }
      base += __popc(hits);
    }
  }
}

/// The same, but of the keys at the bar only those with the lowest ids.
template <typename Keys>
__device__ void gather_with_ties(const Keys& keys, const CandidateRange& range,
                                 SelectionScratch& scratch) {
  int base = 0;
  int ties_before = 0;
  for (int chunk = 0; chunk < keys.chunks(); ++chunk) {
    // Ids of a chunk go by lane first.
    unsigned ties[Keys::kVector];
    int earlier = ties_before;
    for (int j = 0; j < Keys::kVector; ++j) {
      ties[j] = __ballot_sync(kAllLanes, keys.key(chunk, j) == range.bar ? 1 : 0);
      earlier += __popc(ties[j] & lanes_before());
      ties_before += __popc(ties[j]);
    }
    for (int j = 0; j < Keys::kVector; ++j) {
      const uint32_t key = keys.key(chunk, j);
      const bool tie = key == range.bar;
      const bool taken = key > range.bar || (tie && earlier < range.num_ties);
      earlier += tie ? 1 : 0;
      const unsigned hits = __ballot_sync(kAllLanes, taken ? 1 : 0);
      if (taken) {
        scratch.candidates[base + __popc(hits & lanes_before())] =
            candidate_of(key, keys.id(chunk, j));
      }
      base += __popc(hits);
    }
  }
}

/// Writes the best `wanted` of the first `count` candidates to scratch.sorted: each one's place is
/// the number of those that outrank it.
__device__ inline void rank_candidates(int count, int wanted, SelectionScratch& scratch) {
  for (int i = lane_index(); i < count; i += kWarpSize) {
    const unsigned long long mine = scratch.candidates[i];
    int place = 0;
    for (int other = 0; other < count; ++other) place += scratch.candidates[other] > mine ? 1 : 0;
    if (place < wanted) scratch.sorted[place] = mine;
  }
}

/// Writes the best `wanted` keys above 0, at most kMaxTopK, to scratch.sorted, best first. Returns
/// how many there are: fewer where fewer keys are above 0. Called by whole warps.
template <typename Keys>
__device__ int select_best(const Keys& keys, int wanted, SelectionScratch& scratch) {
  uint32_t bar = bar_of_lanes(lane_max(keys), wanted);
  const int reached = count_at_least(keys, bar);
  if (reached < wanted) wanted = reached;  // then the bar is 1 and this is all there is
  __syncwarp();                            // the row before may still be read
  if (reached <= kMaxCandidates) {
    gather(keys, bar, scratch);
    __syncwarp();
    rank_candidates(reached, wanted, scratch);
  } else {
    const CandidateRange range = find_candidates(keys, bar, reached, wanted);
    if (range.limits_ties) {
      gather_with_ties(keys, range, scratch);
    } else {
      gather(keys, range.bar, scratch);
    }
    __syncwarp();
    rank_candidates(range.count, wanted, scratch);
  }
  __syncwarp();
  return wanted;
}

}  // namespace switchyard::cuda

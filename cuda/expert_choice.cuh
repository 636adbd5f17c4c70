// The parts that the kernels of expert choice are made of: scores as keys, the softmax of an
// expert's column, and the order of what an expert chose.
//
// A key is the ordered bits of what tokens are ranked by; tokens that an expert must not choose
// have key 0. Whatever the order in which threads run, a token's place is the number of those that
// outrank it.
#pragma once

#include "cuda/row_inputs.cuh"
#include "cuda/row_selection.cuh"
#include "cuda/weight_cutoff.cuh"
#include "switchyard/expert_choice.h"

namespace switchyard::cuda {

inline constexpr uint32_t kMaskedKey = 0;
inline constexpr uint32_t kUnrankedKey = 1;  ///< of a logit that is not finite; no float has it

/// Tokens whose scores a block writes together: a whole sector of each expert's keys.
inline constexpr int kTileTokens = 8;
/// What is ranked pair by pair; more is sorted by digits.
inline constexpr int kMaxCompared = 512;
/// Threads that choose for an expert: the fewer of few tokens.
inline constexpr int kFewChoiceThreads = 256;
inline constexpr int kChoiceThreads = 1024;

/// Tokens and their keys, side by side.
struct KeyedTokens {
  uint32_t* keys;
  int32_t* tokens;
};

struct ExpertChoiceTask {
  ConstTensorView logits;
  const uint8_t* token_mask;  ///< or null
  MatrixView<int32_t> token_ids;
  MatrixView<float> gate_weights;
  bool over_experts;  ///< the softmax; else over tokens
  bool aligned_rows;  ///< rows of logits may be read by vectors of up to four

  MatrixView<uint32_t> keys;         ///< [num_experts, num_tokens], rows of whole tiles
  MatrixView<uint32_t> spare_keys;   ///< [num_experts, capacity], null where no digits are sorted
  MatrixView<int32_t> spare_tokens;  ///< the same

  [[nodiscard]] SWITCHYARD_HOST_DEVICE int64_t num_tokens() const { return logits.rows; }
  [[nodiscard]] SWITCHYARD_HOST_DEVICE int64_t num_experts() const { return logits.cols; }
  [[nodiscard]] SWITCHYARD_HOST_DEVICE int64_t capacity() const { return token_ids.cols; }
  [[nodiscard]] SWITCHYARD_HOST_DEVICE bool compares() const {
    return num_tokens() <= kMaxCompared || capacity() <= kMaxCompared;
  }

  /// Where an expert's choice ends up. Until the weights are known, their memory holds keys.
  [[nodiscard]] __device__ KeyedTokens chosen_by(int64_t expert) const {
    return {reinterpret_cast<uint32_t*>(gate_weights.row(expert)), token_ids.row(expert)};
  }
  [[nodiscard]] __device__ KeyedTokens spare_of(int64_t expert) const {
    return {spare_keys.row(expert), spare_tokens.row(expert)};
  }
};

/// The keys of one token for all experts, by one warp.
template <int kPerLane>
__device__ void keys_of_token(const ExpertChoiceTask& task, int64_t token,
                              uint32_t (&keys)[kPerLane]) {
  if (task.token_mask != nullptr && task.token_mask[token] == 0) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) keys[i] = kMaskedKey;
    return;
  }
  float x[kPerLane];
  load_finite_row(task.logits, token, task.aligned_rows, x);
  const float max = task.over_experts ? row_max(x) : 0.0f;
  const float denominator = task.over_experts ? row_denominator(x, max) : 1.0f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    keys[i] = kUnrankedKey;
    if (!is_finite(x[i])) continue;
    keys[i] =
        ordered_bits(task.over_experts ? numerics::exp_or_zero(x[i] - max) / denominator : x[i]);
  }
}

/// The softmax over an expert's column. Without a finite logit it is of no use, nor used.
struct ColumnSoftmax {
  float max = 0.0f;
  float denominator = 1.0f;

  [[nodiscard]] __device__ float term(uint32_t key) const {
    return key > kUnrankedKey ? numerics::exp_or_zero(float_of_key(key) - max) : 0.0f;
  }
};

struct ColumnScratch {
  float sums[kChoiceThreads];
  uint32_t warp_max[kMaxWarps];
};

/// The greatest key, in every thread of a block.
__device__ inline uint32_t block_max_key(const uint32_t* keys, int64_t num_keys,
                                         uint32_t* warp_max) {
  uint32_t best = 0;
  for (int64_t i = threadIdx.x; i < num_keys; i += blockDim.x) best = max(best, keys[i]);
  best = __reduce_max_sync(kAllLanes, best);
  if (lane_index() == 0) warp_max[warp_index_in_block()] = best;
  __syncthreads();
  return __reduce_max_sync(kAllLanes,
                           lane_index() < warps_per_block() ? warp_max[lane_index()] : 0);
}

/// The contract's sum of count = 8 * 2^levels terms, by one thread. Groups of eight are visited in
/// bit-reversed order, so that the tree needs no more than one partial sum a level.
template <typename Term>
__device__ float folded_sum_of_thread(int levels, const Term& term) {
  constexpr int kAtOnce = 8;
  float partial[32];
  for (uint32_t visit = 0; visit < 1u << levels; ++visit) {
    const uint32_t first = levels == 0 ? 0 : __brev(visit) >> (kWarpSize - levels);
    float terms[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) terms[i] = term(first + (static_cast<uint32_t>(i) << levels));
#pragma unroll
    for (int half = kAtOnce / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; ++i) terms[i] += terms[i + half];
    }
    const int carries = __ffs(static_cast<int>(~visit)) - 1;
    float sum = terms[0];
    for (int level = 0; level < carries; ++level) sum += partial[level];
    partial[carries] = sum;
  }
  return partial[levels];
}

/// Folds a power of two of values, one a thread of the block; every thread gets the sum.
__device__ inline float fold_block(float value, float* sums) {
  const auto thread = static_cast<int>(threadIdx.x);
  sums[thread] = value;
  __syncthreads();
  for (int half = static_cast<int>(blockDim.x) / 2; half >= kWarpSize; half /= 2) {
    if (thread < half) sums[thread] += sums[thread + half];
    __syncthreads();
  }
  return fold_lanes(sums[lane_index()]);
}

/// For whole blocks of a power of two of threads.
__device__ inline ColumnSoftmax softmax_of_column(const uint32_t* keys, int64_t num_keys,
                                                  ColumnScratch& scratch) {
  const uint32_t best = block_max_key(keys, num_keys, scratch.warp_max);
  ColumnSoftmax column;
  if (best <= kUnrankedKey) return column;
  column.max = float_of_key(best);
  int levels = 0;
  while (int64_t{8 * blockDim.x} << levels < num_keys) ++levels;
  const float sum = folded_sum_of_thread(levels, [&](uint32_t chunk) {
    const int64_t i = static_cast<int64_t>(chunk) * blockDim.x + threadIdx.x;
    return i < num_keys ? column.term(keys[i]) : 0.0f;
  });
  column.denominator = fold_block(sum, scratch.sums);
  return column;
}

/// Ranks candidates, in shared memory, against one another and writes the first `capacity`. For
/// whole blocks.
__device__ inline void sort_by_comparing(const unsigned long long* candidates, int count,
                                         int64_t capacity, const KeyedTokens& to) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    const unsigned long long mine = candidates[i];
    int place = 0;
    for (int other = 0; other < count; ++other) place += candidates[other] > mine ? 1 : 0;
    if (place >= capacity) continue;
    to.keys[place] = key_of(mine);
    to.tokens[place] = id_of(mine);
  }
}

/// Calls visit(i, digit, equal) for this warp's share of the keys, 32 at a time in order; `equal`
/// are the lanes with the same digit. Lanes behind the end of the share have digit kNumDigits.
template <class Visit>
__device__ void visit_digits(const uint32_t* keys, uint32_t count, int shift, const Visit& visit) {
  const uint32_t rounds = (count + blockDim.x - 1) / blockDim.x;
  const uint32_t begin = static_cast<uint32_t>(warp_index_in_block()) * rounds * kWarpSize;
  for (uint32_t round = 0; round < rounds; ++round) {
    const uint32_t i = begin + round * kWarpSize + static_cast<uint32_t>(lane_index());
    const uint32_t digit = i < count ? keys[i] >> shift & (kNumDigits - 1) : kNumDigits;
    visit(i, digit, __match_any_sync(kAllLanes, digit));
  }
}

/// One stable pass of a radix sort, greater digits first. `counters` are [warps][kNumDigits]. For
/// whole blocks of kNumDigits threads or more.
__device__ inline void sort_by_digit(const KeyedTokens& from, const KeyedTokens& to, uint32_t count,
                                     int shift, uint32_t* counters, CutoffScratch& scratch) {
  uint32_t* const counters_of_warp = counters + warp_index_in_block() * kNumDigits;
  clear_counters(counters, warps_per_block() * kNumDigits);
  __syncthreads();
  visit_digits(from.keys, count, shift, [&](uint32_t, uint32_t digit, uint32_t equal) {
    if (digit < kNumDigits && (equal & lanes_before()) == 0) {
      counters_of_warp[digit] += static_cast<uint32_t>(__popc(equal));
    }
    __syncwarp();
  });
  __syncthreads();
  const int digit_of_thread = kNumDigits - 1 - static_cast<int>(threadIdx.x);
  const uint32_t sum =
      digit_of_thread >= 0 ? scan_warps(counters, kNumDigits, digit_of_thread) : 0u;
  int64_t total = 0;
  const int64_t above = block_exclusive_sum(sum, scratch.warp_sums, total);
  if (digit_of_thread >= 0) scratch.counters[digit_of_thread] = static_cast<uint32_t>(above);
  __syncthreads();
  visit_digits(from.keys, count, shift, [&](uint32_t i, uint32_t digit, uint32_t equal) {
    const bool inside = digit < kNumDigits;
    const auto lower = static_cast<uint32_t>(__popc(equal & lanes_before()));
    const uint32_t before = inside ? counters_of_warp[digit] : 0;
    __syncwarp();
    if (inside) {
      if (lower == 0) counters_of_warp[digit] = before + static_cast<uint32_t>(__popc(equal));
      const uint32_t place = scratch.counters[digit] + before + lower;
      to.keys[place] = from.keys[i];
      to.tokens[place] = from.tokens[i];
    }
    __syncwarp();
  });
  __syncthreads();
}

}  // namespace switchyard::cuda

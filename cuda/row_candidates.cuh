// The choice of few experts by a warp that has no other row to hide latency behind: instead of
// rounds that each wait for the one before, lanes compare what all of them have put into shared
// memory.
#pragma once

#include <cfloat>

#include "cuda/intrinsics.cuh"
#include "cuda/row_inputs.cuh"

namespace switchyard::cuda {

/// Experts that are chosen this way at most, and what a lane holds of a row.
inline constexpr int kMaxFewTopK = 16;
inline constexpr int kMaxFewPerLane = 16;

/// Values that a lane compares with its own at a time.
inline constexpr int kComparedAtOnce = 8;

/// Candidates in one lane at most: more take longer to count, and are rare.
inline constexpr int kMaxOfLane = 3;

struct alignas(8) Candidate {
  float value;
  int expert;
};

/// A warp's memory while it chooses. Candidates are in order of experts, behind the last one -inf;
/// behind those of a warp every lane has a place for what is none.
struct alignas(16) CandidateScratch {
  float maxima[kWarpSize];  ///< of groups or of pairs of lanes
  Candidate candidates[2 * kWarpSize];
  float scores[2 * kWarpSize];  ///< of the candidates, where they are not the values
  float terms[kMaxFewTopK];     ///< of the chosen, best first, behind the last one 0
};

/// A lane's part of a usual row, neighbouring experts, as it lies in memory: of 16-bit elements two
/// to a word. The loads may still be on their way.
template <int kPerLane>
struct RowWords {
  static constexpr int kVector = RowLayout<kPerLane>::kVector;

  uint32_t words[kPerLane];

  __device__ static int first_expert() { return lane_index() * kPerLane; }
};

/// Behind the row its last elements stand once more: no load waits for a comparison.
template <typename Word, int kWords, int kPerLane, typename T>
__device__ void load_words(const T* row, int num_experts, RowWords<kPerLane>& to) {
  constexpr int kVector = RowWords<kPerLane>::kVector;
#pragma unroll
  for (int i = 0; i < kPerLane; i += kVector) {
    const int expert = min(to.first_expert() + i, num_experts - kVector);
    using Packed = PackedElements<Word, kWords>;
    const Packed packed = load_vector(reinterpret_cast<const Packed*>(row + expert));
#pragma unroll
    for (int j = 0; j < kWords; ++j) to.words[i / kVector * kWords + j] = packed.values[j];
  }
}

template <int kPerLane>
__device__ void load_words(const RouteTask& task, int64_t token, RowWords<kPerLane>& to) {
  const ConstTensorView& logits = task.logits;
  const int num_experts = task.config.num_experts;
  constexpr int kVector = RowWords<kPerLane>::kVector;
  if (task.usual_rows == UsualRows::kFloat32) {
    load_words<uint32_t, kVector>(logits.as<float>().row(token), num_experts, to);
  } else if constexpr (kVector == 1) {
    load_words<uint16_t, 1>(logits.as<uint16_t>().row(token), num_experts, to);
  } else {
    load_words<uint32_t, kVector / 2>(logits.as<uint16_t>().row(token), num_experts, to);
  }
}

/// The row that a warp routes next, loaded ahead where the batch is a usual one.
template <int kPerLane>
struct RowAhead {
  static constexpr bool kKnown = kPerLane <= kMaxFewPerLane;

  RowWords<kKnown ? kPerLane : 1> words;
  int64_t token = -1;

  __device__ __forceinline__ void load(const RouteTask& task, int64_t its_token) {
    if (!kKnown || task.usual_rows == UsualRows::kNone || its_token >= task.logits.rows) return;
    load_words(task, its_token, words);
    token = its_token;
  }
};

/// The elements; -inf for those that are not finite, and behind the row.
template <int kPerLane>
__device__ void widen_words(const RouteTask& task, const RowWords<kPerLane>& from,
                            float (&x)[kPerLane]) {
  const auto bits = [&](int i) { return static_cast<uint16_t>(from.words[i / 2] >> (i % 2 * 16)); };
  // The type is asked for once, not for every element.
  if (task.usual_rows == UsualRows::kFloat32) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) x[i] = __uint_as_float(from.words[i]);
  } else if (task.usual_rows == UsualRows::kBFloat16) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) x[i] = widen(BFloat16{bits(i)});
  } else {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) x[i] = widen(Float16{bits(i)});
  }
  constexpr int kVector = RowWords<kPerLane>::kVector;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const bool is_expert = from.first_expert() + i / kVector * kVector < task.config.num_experts;
    x[i] = is_expert && fabsf(x[i]) <= FLT_MAX ? x[i] : minus_infinity();
  }
}

/// The largest of kCount values from kFirst on, none of which is NaN.
template <int kFirst, int kCount, int kPerLane>
__device__ float largest(const float (&x)[kPerLane]) {
  if constexpr (kCount == 1) {
    return x[kFirst];
  } else {
    return fmaxf(largest<kFirst, kCount / 2>(x), largest<kFirst + kCount / 2, kCount / 2>(x));
  }
}

/// kComparedAtOnce values from a multiple of that on. Counts are floats: comparisons can put out
/// one, and the compiler leaves their sum the tree that it is.
struct ComparedValues {
  float values[kComparedAtOnce];

  __device__ explicit ComparedValues(const float* first) {
#pragma unroll
    for (int i = 0; i < kComparedAtOnce; i += 4) {
      const auto four = load_vector(reinterpret_cast<const float4*>(first + i));
      values[i] = four.x;
      values[i + 1] = four.y;
      values[i + 2] = four.z;
      values[i + 3] = four.w;
    }
  }
  __device__ explicit ComparedValues(const Candidate* first) {
#pragma unroll
    for (int i = 0; i < kComparedAtOnce; i += 2) {
      const auto two = load_vector(reinterpret_cast<const float4*>(first + i));
      values[i] = two.x;
      values[i + 1] = two.z;
    }
  }

  [[nodiscard]] __device__ int count_above(float value) const {
    return sum_above([value](int) { return value; });
  }
  /// Of equal ones the first `earlier` count; `below` is the next value below.
  [[nodiscard]] __device__ int count_before(float value, float below, int earlier) const {
    return sum_above([=](int i) { return i < earlier ? below : value; });
  }

 private:
  template <typename Bar>
  __device__ int sum_above(const Bar& bar) const {
    static_assert(kComparedAtOnce == 8);
    const auto pair = [&](int i) {
      return (values[i] > bar(i) ? 1.0f : 0.0f) + (values[i + 1] > bar(i + 1) ? 1.0f : 0.0f);
    };
    return small_integer((pair(0) + pair(2)) + (pair(4) + pair(6)));
  }
};

/// The next value below a finite one; both zeros have the same.
__device__ inline float next_below(float value) {
  const uint32_t key = ordered_bits(value);
  const bool is_zero = value == 0.0f;
  return float_of_key(key - (is_zero ? 2u : 1u));
}

/// What a row's candidates are found by.
struct CandidateBar {
  float bar;  ///< -inf where fewer pairs of lanes than wanted have a value
  float max;  ///< of the row
};

/// A bar that at least `wanted` values reach, and few more: the wanted-th largest of the best
/// values of pairs of lanes. `best` is the lane's.
__device__ inline CandidateBar bar_of_pairs(float best, int wanted, CandidateScratch& scratch) {
  constexpr int kPairs = kWarpSize / 2;
  const int lane = lane_index();
  best = fmaxf(best, __shfl_xor_sync(kAllLanes, best, kPairs));
  if (lane < kPairs) scratch.maxima[lane] = best;
  __syncwarp();
  // The lanes of a pair compare with half of the others each.
  const ComparedValues half(scratch.maxima + lane / kPairs * kComparedAtOnce);
  const uint32_t key = ordered_key(best);
  const uint32_t max = __reduce_max_sync(kAllLanes, key);
  int above = half.count_above(best);
  above += __shfl_xor_sync(kAllLanes, above, kPairs);
  const uint32_t bar = __reduce_min_sync(kAllLanes, above < wanted ? key : UINT32_MAX);
  return {float_of_key(bar), float_of_key(max)};
}

/// What gather_candidates() finds.
struct Candidates {
  int count = 0;  ///< 0 where these are too few or too many
  float max = 0;  ///< of the row
};

/// Puts what may be among the best `wanted` into scratch.candidates, with scores if asked to.
template <int kPerLane>
__device__ Candidates gather_candidates(const float (&x)[kPerLane], int wanted,
                                        const float (&scores)[kPerLane], bool with_scores,
                                        CandidateScratch& scratch) {
  const int lane = lane_index();
  if constexpr (kPerLane == 1) {
    scratch.candidates[lane] = {x[0], lane};
    if (with_scores) scratch.scores[lane] = scores[0];
    const unsigned found = __ballot_sync(kAllLanes, x[0] > minus_infinity());
    const uint32_t max = __reduce_max_sync(kAllLanes, ordered_key(x[0]));
    if (__popc(found) < wanted) return {};
    return {kWarpSize - __clz(static_cast<int>(found)), float_of_key(max)};
  } else {
    scratch.candidates[lane] = {minus_infinity(), 0};
    const CandidateBar found = bar_of_pairs(largest<0, kPerLane>(x), wanted, scratch);
    float reached = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; i += 2) {
      reached += (x[i] >= found.bar ? 1.0f : 0.0f) + (x[i + 1] >= found.bar ? 1.0f : 0.0f);
    }
    const int own = small_integer(reached);
    const bool fits = __all_sync(kAllLanes, own <= kMaxOfLane);
    const unsigned ones = __ballot_sync(kAllLanes, own & 1);
    const unsigned twos = __ballot_sync(kAllLanes, own & 2);
    const int count = __popc(ones) + 2 * __popc(twos);
    if (!fits || count > kWarpSize || found.bar == minus_infinity()) return {};
    const int first = __popc(ones & lanes_before()) + 2 * __popc(twos & lanes_before());
    float before = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const bool is_candidate = x[i] >= found.bar;
      const int at = is_candidate ? first + small_integer(before) : kWarpSize + lane;
      store_vector(&scratch.candidates[at],
                   Candidate{x[i], RowWords<kPerLane>::first_expert() + i});
      if (with_scores) scratch.scores[at] = scores[i];
      before += is_candidate ? 1.0f : 0.0f;
    }
    return {count, found.max};
  }
}

/// A candidate in the hands of a lane.
struct RankedCandidate : Candidate {
  int index;
  int place;          ///< among all
  float exponential;  ///< of the value less the largest
  bool is_mine;
};

/// Ranks the candidates, best first, ties by index. Two lanes share one where that is faster. The
/// exponential, wanted or not, is there by the time that the others have come.
__device__ inline RankedCandidate rank_candidate(const Candidates& candidates,
                                                 const CandidateScratch& scratch) {
  constexpr int kHalf = kWarpSize / 2;
  const int lane = lane_index();
  const int count = candidates.count;
  const bool shared = count > kComparedAtOnce && count <= 2 * kComparedAtOnce;
  const int index = shared ? lane % kHalf : lane;
  const Candidate mine = load_vector(&scratch.candidates[index]);
  const float below = next_below(mine.value);
  const float exponential = numerics::exp(mine.value - candidates.max);
  const auto count_before = [&](int first) {
    return ComparedValues(scratch.candidates + first)
        .count_before(mine.value, below, index - first);
  };
  int place = count_before(shared ? lane / kHalf * kComparedAtOnce : 0);
  if (shared) place += __shfl_xor_sync(kAllLanes, place, kHalf);
#pragma unroll 1
  for (int first = kComparedAtOnce; !shared && first < count; first += kComparedAtOnce) {
    place += count_before(first);
  }
  return {mine, index, place, exponential, lane < count && mine.value > minus_infinity()};
}

/// The contract's sum of the terms in scratch.terms, in every lane.
__device__ inline float sum_of_terms(const CandidateScratch& scratch, int top_k) {
  static_assert(kMaxFewTopK == 16);
  const auto load = [&](int first) {
    return load_vector(reinterpret_cast<const float4*>(scratch.terms + first));
  };
  float4 low = load(0);
  float4 high = load(4);
  if (top_k > 8) {
    const float4 lower = load(8);
    const float4 upper = load(12);
    low = {low.x + lower.x, low.y + lower.y, low.z + lower.z, low.w + lower.w};
    high = {high.x + upper.x, high.y + upper.y, high.z + upper.z, high.w + upper.w};
  }
  return ((low.x + high.x) + (low.z + high.z)) + ((low.y + high.y) + (low.w + high.w));
}

}  // namespace switchyard::cuda

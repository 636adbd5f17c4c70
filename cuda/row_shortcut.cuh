// A row by some lanes of a warp, where the choice is made on the logits, the chosen weights are
// renormalised and nothing else is asked for: one instruction serves several rows.
//
// The best top_k experts lie in the best top_k groups of neighbours, by their greatest logits: what
// is chosen of a group is no better than that. So the lanes first choose a group each, then among
// the experts of these groups. A row whose best logits are not all finite, or whose order is not
// that of its keys, is left to route_row().
#pragma once

#include <cstddef>

#include "cuda/row_router.cuh"
#include "cuda/sorting_networks.cuh"

namespace switchyard::cuda {

inline constexpr int kGroupSize = 4;

/// Integers that order a row's experts: greater logits first, then lower ids. The id takes the
/// place of a logit's last bits, in which a widened bfloat16 has nothing.
template <typename T, int kMaxRowExperts>
struct ExpertKeys {
  static_assert(kMaxRowExperts <= 512 && (kMaxRowExperts & (kMaxRowExperts - 1)) == 0);
  static constexpr int kIdMask = kMaxRowExperts - 1;
  static constexpr int kCutMask = sizeof(T) == 2 ? 0xffff : kIdMask;
  static constexpr int kInfinity = 0x7f800000;

  __device__ static int key_of(float logit, int expert) {
    // Sign and magnitude as an integer, so that -0 is +0.
    const int bits = __float_as_int(logit);
    const int sign = bits >> 31;
    return ((bits & (0x7fffffff - kCutMask)) ^ sign) - sign + (kIdMask - expert);
  }
  __device__ static int expert_of(int key) { return ~key & kIdMask; }

  /// Whether a key's logit is below +inf and no NaN that lies there.
  __device__ static bool is_low(int key) { return key < kInfinity; }
  __device__ static bool is_finite(int key) {
    constexpr uint32_t kLowest = kInfinity - kIdMask - 1;
    return static_cast<uint32_t>(key) + kLowest < kLowest + kInfinity;
  }
  /// Whether two keys have the same logit, cut.
  __device__ static bool are_alike(int key, int other) { return ((key ^ other) & ~kIdMask) == 0; }
  /// Whether a key's logit, cut, is at least that of another.
  __device__ static bool reaches(int key, int other) { return key >= (other & ~kIdMask); }
};

/// A row of a batch for which 32 bits are enough, for its number and for the bytes between rows.
template <typename T>
__device__ const T* narrow_row(const ConstTensorView& logits, uint32_t token) {
  const auto stride = static_cast<uint32_t>(logits.row_stride) * uint32_t{sizeof(T)};
  return reinterpret_cast<const T*>(static_cast<const std::byte*>(logits.data) +
                                    uint64_t{token} * stride);
}

/// A group of logits, widened as far as keys need it; -inf where there is none.
struct Group {
  float values[kGroupSize];

  __device__ Group(const float* row, int first, int num_experts) {
    PackedElements<float, kGroupSize> packed;
    for (float& value : packed.values) value = minus_infinity();
    if (first < num_experts) packed = load_vector(at<decltype(packed)>(row + first));
    for (int j = 0; j < kGroupSize; ++j) values[j] = packed.values[j];
  }
  /// Pairs: the first of them stands in the last bits of the second, which keys do not hold.
  __device__ Group(const BFloat16* row, int first, int num_experts) {
    uint2 pairs{0xff80ff80u, 0xff80ff80u};
    if (first < num_experts) pairs = load_vector(at<uint2>(row + first));
    values[0] = __uint_as_float(pairs.x << 16);
    values[1] = __uint_as_float(pairs.x);
    values[2] = __uint_as_float(pairs.y << 16);
    values[3] = __uint_as_float(pairs.y);
  }

  /// NaNs do not count but in a group without others. Nor does an infinity that is one with the
  /// other value of its pair behind it.
  [[nodiscard]] __device__ float greatest() const {
    return max(max(values[0], values[1]), max(values[2], values[3]));
  }

 private:
  template <typename Vector, typename T>
  __device__ static const Vector* at(const T* address) {
    return reinterpret_cast<const Vector*>(address);
  }
};
static_assert(kGroupSize == 4);

/// Whether a lane's groups of a row have bits that keys do not hold.
template <int kLanes, int kGroups>
__device__ bool has_cut_bits(const float* row, int num_experts) {
  uint32_t bits = 0;
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    const int first = (i * kLanes + lane_index() % kLanes) * kGroupSize;
    if (first >= num_experts) continue;
    const Group group(row, first, num_experts);
    for (const float logit : group.values) bits |= __float_as_uint(logit);
  }
  return (bits & ExpertKeys<float, kLanes * kGroups * kGroupSize>::kCutMask) != 0;
}

/// Whether `value` is true for a lane of this one's row.
template <int kLanes>
__device__ bool any_of_row(bool value) {
  const unsigned lanes = __ballot_sync(kAllLanes, value ? 1 : 0) >> (lane_index() & -kLanes);
  return (lanes & ((1u << kLanes) - 1u)) != 0;
}

/// Routes a token for each kLanes lanes of the warp, all of which call it; `is_row` is false where
/// there is none. Returns the lanes whose rows are left, and nothing of these written.
template <int kLanes, int kGroups, typename T>
__device__ unsigned route_row_by_lanes(const RouteTask& task, const BlockTally& tally,
                                       uint32_t token, bool is_row) {
  using Keys = ExpertKeys<T, kLanes * kGroups * kGroupSize>;
  const int lane = lane_index() % kLanes;
  const int num_experts = task.config.num_experts;
  const int top_k = task.config.top_k;
  const T* const row = narrow_row<T>(task.logits, is_row ? token : 0);

  int groups[kGroups];
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    const int first = (i * kLanes + lane) * kGroupSize;
    groups[i] = Keys::key_of(Group(row, first, num_experts).greatest(), first);
  }
  LaneLists<kLanes, kGroups> group_lists(lane);
  const int group_key = group_lists.template greatest<false>(groups);
  const int first = Keys::expert_of(group_key);

  const Group group(row, first, num_experts);
  int experts[kGroupSize];
#pragma unroll
  for (int j = 0; j < kGroupSize; ++j) experts[j] = Keys::key_of(group.values[j], first + j);
  LaneLists<kLanes, kGroupSize> expert_lists(lane);
  const int mine = expert_lists.template greatest<true>(experts);

  const bool is_chosen = lane < top_k;
  const bool is_read = is_chosen & Keys::is_finite(mine);
  // A group of nothing but NaNs may have come before others, whatever the keys of these.
  const bool is_bad = (is_chosen & !is_read) | !Keys::is_low(group_key);
  bool is_tied = false;
  if constexpr (std::is_same_v<T, float>) {
    const int last = __shfl_sync(kAllLanes, mine, top_k - 1, kLanes);
    const int next = __shfl_down_sync(kAllLanes, mine, 1, kLanes);
    const int dropped = max(group_lists.greatest_dropped, expert_lists.greatest_dropped);
    const bool is_dropped = Keys::reaches(is_chosen ? dropped : max(dropped, mine), last);
    const bool is_like_next = Keys::are_alike(mine, next);
    is_tied = is_dropped | ((lane < top_k - 1) & is_like_next);
  }
  bool is_left = false;
  unsigned left = 0;
  if (__any_sync(kAllLanes, (is_row & (is_bad | is_tied)) ? 1 : 0) != 0) {
    is_left = any_of_row<kLanes>(is_bad);
    if constexpr (std::is_same_v<T, float>) {
      const bool has_tie = any_of_row<kLanes>(is_tied);
      const bool has_cut = any_of_row<kLanes>(has_cut_bits<kLanes, kGroups>(row, num_experts));
      is_left |= has_tie & has_cut;
    }
    left = __ballot_sync(kAllLanes, (is_row & is_left) ? 1 : 0);
  }

  const int expert = Keys::expert_of(mine);
  const float logit = widen(row[is_read ? expert : 0]);
  const float power = numerics::exp(logit - __shfl_sync(kAllLanes, logit, 0, kLanes));
  const float term = is_chosen ? power : 0.0f;
  float total = term;
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    total += __shfl_xor_sync(kAllLanes, total, distance);
  }
  if (is_chosen & is_row & !is_left) {
    store_choice(task, tally, token, lane, expert,
                 term / total * task.config.routed_scaling_factor);
  }
  return left;
}

}  // namespace switchyard::cuda

// Group-limited choice for one row: which groups of experts stay.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_GROUPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_GROUPS_INL_H_
#undef SWITCHYARD_CPU_ROW_GROUPS_INL_H_
#else
#define SWITCHYARD_CPU_ROW_GROUPS_INL_H_
#endif

#include <algorithm>
#include <bit>
#include <cfloat>

#include "cpu/group_scores-inl.h"
#include "cpu/row_selection-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// The sum of the `terms` best scores of a group, by the contract's tree; -inf without a finite one.
HWY_INLINE float GroupScoreOf(const float* HWY_RESTRICT scores, size_t size, size_t terms) {
  float best[kMaxTopK];
  size_t count = 0;
  for (size_t i = 0; i < size; ++i) {
    const float score = scores[i];
    if (score == kMinusInfinity) continue;
    if (count == terms && score <= best[count - 1]) continue;
    size_t place = count < terms ? count++ : count - 1;
    for (; place > 0 && best[place - 1] < score; --place) best[place] = best[place - 1];
    best[place] = score;
  }
  if (count == 0) return kMinusInfinity;
  const size_t padded = std::bit_ceil(count);
  for (size_t i = count; i < padded; ++i) best[i] = 0.0f;
  const float sum = FoldedSum(best, padded);
  // Opposed infinities within the tree make a NaN, which counts as the least score.
  return sum >= -FLT_MAX ? std::min(sum, FLT_MAX) : -FLT_MAX;
}

// Replaces the scores of experts outside the best `top_groups` groups by -inf.
HWY_INLINE void LimitToBestGroups(const RouterConfig& config, float* HWY_RESTRICT row) {
  const auto num_groups = static_cast<size_t>(config.num_groups);
  const auto top_groups = static_cast<size_t>(config.top_groups);
  if (num_groups == top_groups) return;
  const auto size = static_cast<size_t>(config.num_experts) / num_groups;
  const auto terms = static_cast<size_t>(group_terms(config));

  HWY_ALIGN float scores[kMaxExperts];
  if (VectorsScoreGroups(config)) {
    hn::Store(GroupScores(MakeGroupLayout(config), row), FloatTag(), scores);
  } else {
    for (size_t g = 0; g < num_groups; ++g) {
      scores[g] = GroupScoreOf(row + g * size, size, terms) + 0.0f;
    }
  }
  // A group stays when fewer than top_groups outrank it. Keys: the scores as ordered integers.
  HWY_ALIGN int32_t keys[kMaxExperts + kLanes];
  const size_t padded = PaddedSize(num_groups);
  for (size_t g = num_groups; g < padded; ++g) scores[g] = kMinusInfinity;
  for (size_t g = 0; g < padded; g += kLanes) {
    hn::Store(OrderedBits(hn::Load(FloatTag(), scores + g)), IntTag(), keys + g);
  }
  size_t reached;
  const int32_t bar =
      KthLargest(keys, padded, top_groups, INT32_MIN + int64_t{1}, INT32_MAX, reached);
  size_t above = 0;
  for (size_t g = 0; g < num_groups; ++g) above += keys[g] > bar ? 1 : 0;
  size_t at_bar = reached > top_groups ? top_groups - above : num_groups;
  for (size_t g = 0; g < num_groups; ++g) {
    bool keep = keys[g] >= bar;
    if (keep && keys[g] == bar) {
      keep = at_bar > 0;
      at_bar -= keep ? 1 : 0;
    }
    if (keep) continue;
    for (size_t i = 0; i < size; ++i) row[g * size + i] = kMinusInfinity;
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

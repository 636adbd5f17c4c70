// The scores of a row's groups, in vectors.

// Per-target include guard
#if defined(SWITCHYARD_CPU_GROUP_SCORES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_GROUP_SCORES_INL_H_
#undef SWITCHYARD_CPU_GROUP_SCORES_INL_H_
#else
#define SWITCHYARD_CPU_GROUP_SCORES_INL_H_
#endif

#include <bit>
#include <cfloat>

#include "cpu/group_layout.h"
#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Whether GroupScores() handles a config.
inline bool VectorsScoreGroups(const RouterConfig& config) {
  const int32_t size = config.num_experts / config.num_groups;
  const int32_t terms = group_terms(config);
  const auto lanes = static_cast<int32_t>(kLanes);
  return config.num_groups <= lanes && size >= lanes &&
         (terms == 1 || (terms == 2 && size % lanes == 0));
}

inline GroupLayout MakeGroupLayout(const RouterConfig& config) {
  GroupLayout layout{};
  layout.num_groups = static_cast<size_t>(config.num_groups);
  layout.top_groups = static_cast<size_t>(config.top_groups);
  layout.group_size = static_cast<size_t>(config.num_experts) / layout.num_groups;
  layout.padded_size = PaddedSize(layout.group_size);
  layout.terms = static_cast<size_t>(group_terms(config));
  return layout;
}

// The best and the second best of a list of scores, lane by lane.
struct BestTwo {
  FloatVec best;
  FloatVec second;
};

HWY_INLINE BestTwo Merge(const BestTwo& a, const BestTwo& b) {
  return {hn::Max(a.best, b.best), hn::Max(hn::Min(a.best, b.best), hn::Max(a.second, b.second))};
}

// Merges neighbouring lanes of two vectors: what `a` held lands in the lower half, `b` above.
HWY_INLINE BestTwo MergeNeighbours(const BestTwo& a, const BestTwo& b) {
  const FloatTag d;
  return Merge({hn::ConcatEven(d, b.best, a.best), hn::ConcatEven(d, b.second, a.second)},
               {hn::ConcatOdd(d, b.best, a.best), hn::ConcatOdd(d, b.second, a.second)});
}

// Eight groups of so many scores, as published models have them, are handled without loops over
// lengths known only at run time: those keep what the loops collect in memory.
constexpr size_t kUsualGroups = 8;
constexpr size_t kUsualGroupSize = 32;

// The scores of one row's groups, group g in lane g; -inf for a group without a finite score.
// kPadded is the number of groups rounded up to a power of two; kUsual promises that there are so
// many, of kUsualGroupSize each.
template <size_t kPadded, bool kUsual = false>
HWY_INLINE FloatVec GroupScores(const GroupLayout& layout, const float* HWY_RESTRICT row) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  const size_t num_groups = kUsual ? kPadded : layout.num_groups;
  const size_t group_size = kUsual ? kUsualGroupSize : layout.group_size;
  BestTwo groups[kPadded];
  for (size_t g = 0; g < kPadded; ++g) {
    groups[g] = {lowest, lowest};
    if (g >= num_groups) continue;
    const float* p = row + g * group_size;
    groups[g].best = hn::LoadU(d, p);
    for (size_t i = kLanes; i < group_size; i += kLanes) {
      // The last vector of a group may overlap the one before: a maximum does not mind, and sums
      // of two come with whole vectors only.
      const FloatVec next = hn::LoadU(d, p + HWY_MIN(i, group_size - kLanes));
      const FloatVec lesser = hn::Min(groups[g].best, next);
      groups[g].best = hn::Max(groups[g].best, next);
      groups[g].second = i == kLanes ? lesser : hn::Max(groups[g].second, lesser);
    }
  }
  for (size_t count = kPadded; count > 1; count /= 2) {
    for (size_t i = 0; i < count / 2; ++i) {
      groups[i] = MergeNeighbours(groups[2 * i], groups[2 * i + 1]);
    }
  }
  for (size_t run = kLanes / kPadded; run > 1; run /= 2) {
    groups[0] = MergeNeighbours(groups[0], groups[0]);
  }
  if (layout.terms == 1) return groups[0].best;
  const FloatVec second = groups[0].second;
  const FloatVec sum =
      hn::Add(groups[0].best, hn::IfThenElse(hn::Eq(second, lowest), hn::Zero(d), second));
  const FloatVec bounded = hn::Max(hn::Min(sum, hn::Set(d, FLT_MAX)), hn::Set(d, -FLT_MAX));
  return hn::IfThenElse(hn::Eq(groups[0].best, lowest), lowest, bounded);
}

HWY_INLINE FloatVec GroupScores(const GroupLayout& layout, const float* HWY_RESTRICT row) {
  constexpr size_t kEight = HWY_MIN(kLanes, kUsualGroups);
  if (kEight == kUsualGroups && layout.num_groups == kUsualGroups &&
      layout.group_size == kUsualGroupSize) {
    return GroupScores<kEight, true>(layout, row);
  }
  switch (std::bit_ceil(layout.num_groups)) {
    case 2:
      return GroupScores<2>(layout, row);
    case 4:
      return GroupScores<4>(layout, row);
    case 8:
      return GroupScores<kEight>(layout, row);
    default:
      return GroupScores<kLanes>(layout, row);
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

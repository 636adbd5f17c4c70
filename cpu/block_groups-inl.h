// Group-limited choice for a block of rows: group scores, the groups that stay, and rows that hold
// only their experts.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_GROUPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_GROUPS_INL_H_
#undef SWITCHYARD_CPU_BLOCK_GROUPS_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_GROUPS_INL_H_
#endif

#include <bit>
#include <cfloat>

#include "cpu/block_choice-inl.h"
#include "cpu/block_transpose-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// How a block's groups lie in memory.
struct GroupLayout {
  size_t num_groups;
  size_t top_groups;
  size_t group_size;
  size_t padded_size;  // of one group in a compacted row
  size_t terms;        // members summed, 1 or 2
};

// Whether the functions below handle a config; others limit their groups row by row.
inline bool BlocksLimitGroups(const RouterConfig& config) {
  const int32_t size = config.num_experts / config.num_groups;
  const int32_t terms = group_terms(config);
  const auto lanes = static_cast<int32_t>(kLanes);
  return config.num_groups <= lanes && size >= lanes &&
         (terms == 1 || (terms == 2 && size % lanes == 0));
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

// The scores of one row's groups, group g in lane g; -inf for a group without a finite score.
HWY_INLINE FloatVec GroupScores(const GroupLayout& layout, const float* HWY_RESTRICT row) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  BestTwo groups[kLanes];
  const size_t padded = std::bit_ceil(layout.num_groups);
  for (size_t g = 0; g < padded; ++g) {
    groups[g] = {lowest, lowest};
    if (g >= layout.num_groups) continue;
    const float* p = row + g * layout.group_size;
    groups[g].best = hn::LoadU(d, p);
    for (size_t i = kLanes; i < layout.group_size; i += kLanes) {
      // The last vector of a group may overlap the one before: a maximum does not mind, and sums
      // of two come with whole vectors only.
      const size_t at = HWY_MIN(i, layout.group_size - kLanes);
      groups[g] = Merge(groups[g], {hn::LoadU(d, p + at), lowest});
    }
  }
  for (size_t count = padded; count > 1; count /= 2) {
    for (size_t i = 0; i < count / 2; ++i) {
      groups[i] = MergeNeighbours(groups[2 * i], groups[2 * i + 1]);
    }
  }
  for (size_t run = kLanes / padded; run > 1; run /= 2) {
    groups[0] = MergeNeighbours(groups[0], groups[0]);
  }
  if (layout.terms == 1) return groups[0].best;
  const FloatVec second = groups[0].second;
  const FloatVec sum =
      hn::Add(groups[0].best, hn::IfThenElse(hn::Eq(second, lowest), hn::Zero(d), second));
  const FloatVec bounded = hn::Max(hn::Min(sum, hn::Set(d, FLT_MAX)), hn::Set(d, -FLT_MAX));
  return hn::IfThenElse(hn::Eq(groups[0].best, lowest), lowest, bounded);
}

// Bit g of masks[r]: group g stays in row r. scores[r * kLanes + g] are the group scores.
HWY_INLINE void KeepBestGroups(const GroupLayout& layout, const float* HWY_RESTRICT scores,
                               int32_t* HWY_RESTRICT masks) {
  const FloatTag d;
  const IntTag di;
  FloatVec columns[kLanes];
  for (size_t g = 0; g < layout.num_groups; g += 4) LoadColumns(scores + g, kLanes, columns + g);
  IntVec outranked_by[kLanes];
  for (size_t g = 0; g < layout.num_groups; ++g) outranked_by[g] = hn::Zero(di);
  const IntVec one = hn::Set(di, 1);
  for (size_t a = 0; a < layout.num_groups; ++a) {
    for (size_t b = a + 1; b < layout.num_groups; ++b) {
      const IntVec first_wins =
          hn::VecFromMask(di, hn::RebindMask(di, hn::Ge(columns[a], columns[b])));  // 0 or -1
      outranked_by[b] = hn::Sub(outranked_by[b], first_wins);
      outranked_by[a] = hn::Add(outranked_by[a], hn::Add(one, first_wins));
    }
  }
  (void)d;
  IntVec mask = hn::Zero(di);
  const IntVec limit = hn::Set(di, static_cast<int32_t>(layout.top_groups));
  for (size_t g = 0; g < layout.num_groups; ++g) {
    const IntVec bit = hn::Set(di, static_cast<int32_t>(1u << g));
    mask = hn::Or(mask, hn::IfThenElseZero(hn::Lt(outranked_by[g], limit), bit));
  }
  hn::Store(mask, di, masks);
}

// Copies the groups that stay, ascending, each padded with -inf to whole vectors. to_expert[s *
// kLanes + r] added to a position in group s of compacted row r gives the expert.
HWY_INLINE void CompactRow(const GroupLayout& layout, size_t row, uint32_t mask,
                           const float* HWY_RESTRICT from, float* HWY_RESTRICT to,
                           int32_t* HWY_RESTRICT to_expert) {
  const FloatTag d;
  for (size_t s = 0; s < layout.top_groups; ++s, mask &= mask - 1) {
    const auto group = static_cast<size_t>(std::countr_zero(mask));
    const float* source = from + group * layout.group_size;
    float* target = to + s * layout.padded_size;
    size_t i = 0;
    for (; i + kLanes <= layout.group_size; i += kLanes) {
      hn::StoreU(hn::LoadU(d, source + i), d, target + i);
    }
    for (; i < layout.group_size; ++i) target[i] = source[i];
    for (; i < layout.padded_size; ++i) target[i] = kMinusInfinity;
    to_expert[s * kLanes + row] = static_cast<int32_t>(group * layout.group_size) -
                                  static_cast<int32_t>(s * layout.padded_size);
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

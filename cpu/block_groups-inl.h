// Group-limited choice for a block of rows: the groups that stay, and rows that hold only their
// experts.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_GROUPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_GROUPS_INL_H_
#undef SWITCHYARD_CPU_BLOCK_GROUPS_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_GROUPS_INL_H_
#endif

#include <bit>

#include "cpu/block_choice-inl.h"
#include "cpu/block_transpose-inl.h"
#include "cpu/group_scores-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Bit g of masks[r]: group g stays in row r. scores[r * kLanes + g] are the group scores.
template <size_t kGroups>
HWY_INLINE void KeepBestGroups(const GroupLayout& layout, const float* HWY_RESTRICT scores,
                               int32_t* HWY_RESTRICT masks) {
  const IntTag di;
  FloatVec columns[kGroups];
  for (size_t g = 0; g < kGroups; g += 4) LoadColumns(scores + g, kLanes, columns + g);
  // What lies past the last group ranks behind every group.
  for (size_t g = layout.num_groups; g < kGroups; ++g) {
    columns[g] = hn::Set(FloatTag(), kMinusInfinity);
  }
  IntVec outranked_by[kGroups];
  const IntVec one = hn::Set(di, 1);
  for (size_t g = 0; g < kGroups; ++g) outranked_by[g] = hn::Zero(di);
  for (size_t a = 0; a < kGroups; ++a) {
    for (size_t b = a + 1; b < kGroups; ++b) {
      const auto first_wins = hn::RebindMask(di, hn::Ge(columns[a], columns[b]));
      outranked_by[b] = hn::IfThenElse(first_wins, hn::Add(outranked_by[b], one), outranked_by[b]);
      outranked_by[a] = hn::IfThenElse(first_wins, outranked_by[a], hn::Add(outranked_by[a], one));
    }
  }
  IntVec mask = hn::Zero(di);
  const IntVec limit = hn::Set(di, static_cast<int32_t>(layout.top_groups));
  for (size_t g = 0; g < layout.num_groups; ++g) {
    const IntVec bit = hn::Set(di, static_cast<int32_t>(1u << g));
    mask = hn::Or(mask, hn::IfThenElseZero(hn::Lt(outranked_by[g], limit), bit));
  }
  hn::Store(mask, di, masks);
}

HWY_INLINE void KeepBestGroups(const GroupLayout& layout, const float* HWY_RESTRICT scores,
                               int32_t* HWY_RESTRICT masks) {
  if (layout.num_groups == 8 && kLanes >= 8) {
    return KeepBestGroups<HWY_MIN(kLanes, size_t{8})>(layout, scores, masks);
  }
  KeepBestGroups<kLanes>(layout, scores, masks);
}

// Copies the groups that stay, ascending, each padded with -inf to whole vectors. to_expert[s *
// kLanes + r] added to a position in group s of compacted row r gives the expert.
HWY_INLINE void CompactRow(GroupLayout layout, size_t row, uint32_t mask,
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

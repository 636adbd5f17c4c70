// The fixed-point arithmetic of ExpertAffinity, the same bits on host and device.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "switchyard/tensor_view.h"

namespace switchyard {

/// Units of a score of max_score. One unit, the resolution, is max_score / (2^32 - 1).
inline constexpr uint32_t kMaxAffinityUnits = std::numeric_limits<uint32_t>::max();

/// What a batch does to a score, in units.
struct AffinityRule {
  uint64_t decay = uint64_t{1} << 32;  ///< 2^32 is 1.0
  uint64_t boost = 0;                  ///< units an assignment, at most kMaxAffinityUnits
};

/// `decay` is in [0, 1], the others are finite and 0 or more. Both results are rounded to nearest,
/// halves up, but a boost above 0 is at least one unit, so that it is never lost.
inline AffinityRule make_affinity_rule(float decay, float activation_boost, float max_score) {
  AffinityRule rule;
  rule.decay = static_cast<uint64_t>(std::llround(static_cast<double>(decay) * 0x1p32));
  if (activation_boost <= 0.0f || max_score <= 0.0f) return rule;
  rule.boost = kMaxAffinityUnits;
  if (activation_boost < max_score) {
    const double share = static_cast<double>(activation_boost) / max_score;
    const auto units = static_cast<uint64_t>(std::llround(share * kMaxAffinityUnits));
    rule.boost = units == 0 ? 1 : units;
  }
  return rule;
}

/// A score after a batch without assignments. Rounds down, so a decay below 1 lowers every score
/// above 0 by at least one unit and none lingers; a decay of 1 changes nothing.
SWITCHYARD_HOST_DEVICE inline uint32_t decayed_units(const AffinityRule& rule, uint32_t units) {
  return static_cast<uint32_t>(units * rule.decay >> 32);
}

/// A score after a batch with `count` assignments: min(max_score, decay(score) + boost * count).
SWITCHYARD_HOST_DEVICE inline uint32_t updated_units(const AffinityRule& rule, uint32_t units,
                                                     uint64_t count) {
  // 2^32 - 1 boosts of one unit fill any score, and (2^32 - 1)^2 + 2^32 - 1 is below 2^64.
  const uint64_t limited = count < kMaxAffinityUnits ? count : kMaxAffinityUnits;
  const uint64_t sum = decayed_units(rule, units) + limited * rule.boost;
  return sum < kMaxAffinityUnits ? static_cast<uint32_t>(sum) : kMaxAffinityUnits;
}

/// `activations` and `count` more; stops at INT64_MAX.
SWITCHYARD_HOST_DEVICE inline int64_t added_activations(int64_t activations, uint64_t count) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const auto room = static_cast<uint64_t>(kMost - activations);
  return count < room ? activations + static_cast<int64_t>(count) : kMost;
}

/// The score that `units` stand for: rounded once to float32, monotone, max_score at the most.
SWITCHYARD_HOST_DEVICE inline float affinity_score(uint32_t units, float max_score) {
  return static_cast<float>(units * (static_cast<double>(max_score) / kMaxAffinityUnits));
}

}  // namespace switchyard

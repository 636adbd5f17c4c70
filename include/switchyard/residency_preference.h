// Preferring experts in fast memory when tokens are routed, and how much that may cost.
#pragma once

#include <cstdint>
#include <limits>

#include "switchyard/tensor_view.h"

namespace switchyard {

/// What a residency bonus is measured in.
enum class BonusScale : uint8_t {
  kAbsolute,  ///< selection scores: logits for softmax that selects on them
  kSpread,    ///< the row's greatest less its least selection score among experts it may choose
};

/// Lets resident experts take the place of others that a token would choose.
///
/// Where S are the token's choices without a preference, its non-resident members from the weakest
/// up meet the resident experts outside of S from the best down (those of the groups that stay, for
/// group-limited routing). With selection scores v and scores e before any bias (softmax:
/// e^(x - max), of which probabilities are the share in the denominator d of the row; otherwise
/// d = 1), expert i gives way to j while
///
///   v_j + bonus outranks v_i           equal ones: the lower id
///   loss = max(0, e_i - e_j) <= max_swap_loss * d
///   the sum of all losses so far <= max_sacrificed_share * sum of e over S
///   i is none of the first num_protected of S
///
/// and the first pair that fails ends it. The choices that stayed come first, then the resident
/// ones, each in order of v, and weights are formed from the result as ever. A bonus of 0 or no
/// resident expert gives the bits of routing without a preference.
///
/// Bounds as in cache-conditional experts (arXiv 2412.00099), with a limit of the lost mass.
struct ResidencyPreference {
  VectorView<const uint8_t> resident_experts{};  ///< [num_experts] in the backend's memory, 0: not
                                                 ///< resident; empty: no preference
  float bonus = 0.0f;                            ///< 0 or more; infinite: only the bounds decide
  BonusScale bonus_scale = BonusScale::kAbsolute;
  float max_swap_loss = 1.0f;          ///< of one choice, as a probability; 0 or more, or infinite
  float max_sacrificed_share = 0.02f;  ///< of the mass of S; 0 or more, or infinite
  int32_t num_protected = 0;           ///< best choices that never give way, 0 to top_k

  /// Whether routing differs from routing without a preference.
  [[nodiscard]] constexpr bool is_active() const {
    return !resident_experts.empty() && bonus > 0.0f;
  }
};

/// A bonus without bounds.
constexpr ResidencyPreference additive_preference(VectorView<const uint8_t> resident_experts,
                                                  float bonus) {
  constexpr float kUnbounded = std::numeric_limits<float>::infinity();
  return {.resident_experts = resident_experts,
          .bonus = bonus,
          .max_swap_loss = kUnbounded,
          .max_sacrificed_share = kUnbounded};
}

}  // namespace switchyard

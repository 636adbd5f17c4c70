// Which experts follow which, learnt as tokens pass: from layer to layer, or from token to token.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/tensor_view.h"

namespace switchyard {

inline constexpr int32_t kMaxTransitionExperts = 4096;

/// For each expert `from` how often it was chosen lately, and how often each expert was chosen
/// right after it. A row halves whenever it holds kMostVisits, so that old text is forgotten; that
/// costs num_experts / 128 steps a visit, everything else one step a pair.
///
/// Memory is allocated by the constructor alone: 2 * num_experts^2 bytes and little more. Calls are
/// made one at a time; predictions may run beside each other. Deterministic in every bit.
class ExpertTransitions {
 public:
  static constexpr int32_t kMostVisits = 256;
  /// Visits that the prior counts as.
  static constexpr float kPriorVisits = 2.0f;

  /// @param num_experts  1 to 4096.
  /// @throws InvalidArgument, std::bad_alloc
  explicit ExpertTransitions(int32_t num_experts);

  [[nodiscard]] int32_t num_experts() const { return num_experts_; }

  /// Adds one step. Ids of -1 (padding) are left out; an id within one list is not repeated.
  /// @throws InvalidArgument  for an id outside [-1, num_experts); nothing is learnt then.
  void learn(VectorView<const int32_t> from, VectorView<const int32_t> to);

  /// How probable each expert is after `from`: the mean over the experts of `from` of
  /// (count + 2 * prior) / (visits + 2). All that the prior says where `from` is empty.
  ///
  /// @param prior          [num_experts] each in [0, 1], or empty: 0.
  /// @param probabilities  [num_experts], may be `prior`'s memory.
  /// @throws InvalidArgument  for sizes that disagree, or an id outside [-1, num_experts).
  void predict(VectorView<const int32_t> from, VectorView<const float> prior,
               VectorView<float> probabilities) const;

  void reset();

  /// Unchecked, for loops over few experts: the share of `expert` among what followed `from`.
  [[nodiscard]] float probability(int32_t from, int32_t expert, float prior) const {
    const auto row = static_cast<size_t>(from);
    const float count =
        counts_[row * static_cast<size_t>(num_experts_) + static_cast<size_t>(expert)];
    return (count + kPriorVisits * prior) / (static_cast<float>(visits_[row]) + kPriorVisits);
  }
  /// learn() of checked ids.
  void learn_checked(VectorView<const int32_t> from, VectorView<const int32_t> to);

 private:
  void age(size_t row);

  int32_t num_experts_;
  std::vector<uint16_t> counts_;  ///< [from][to]
  std::vector<int32_t> visits_;   ///< [from]
};

}  // namespace switchyard

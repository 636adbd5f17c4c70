// Routes a layer's tokens one by one, since what is resident changes from one to the next.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/router.h"

namespace switchyard::tools {

/// How much residency counts in the choice; see ResidencyPreference.
struct ChoicePreference {
  float bonus = 0.0f;
  bool is_spread = false;    ///< the bonus is a share of the row's spread
  bool is_additive = false;  ///< the bonus alone, without bounds
  float max_probability_loss = 0.0f;
  float max_sacrificed_share = 0.0f;
  int32_t num_kept = 0;

  bool operator==(const ChoicePreference&) const = default;
};

class TokenSelector {
 public:
  /// @param config  without shared experts.
  explicit TokenSelector(const RouterConfig& config);

  struct Choice {
    VectorView<const int32_t> expert_ids;  ///< [top_k], until the next call
    float sacrificed_mass = 0.0f;
  };
  Choice select(const ConstTensorView& logits, int64_t token, VectorView<const float> bias,
                const ChoicePreference& preference, VectorView<const uint8_t> resident);

 private:
  Router router_;
  std::vector<int32_t> expert_ids_;
  std::vector<float> gate_weights_;
  std::vector<std::byte> workspace_;
  float sacrificed_mass_ = 0.0f;
};

}  // namespace switchyard::tools

// Routes a layer's tokens one by one, since what is resident changes from one to the next.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/router.h"

namespace switchyard::tools {

class TokenSelector {
 public:
  /// On the CPU, where a token by itself costs least.
  /// @param config  without shared experts.
  explicit TokenSelector(const RouterConfig& config);

  struct Choice {
    VectorView<const int32_t> expert_ids;  ///< [top_k], until the next call
    float sacrificed_mass = 0.0f;
  };
  /// @throws InvalidArgument  for a preference that the router refuses.
  Choice select(const ConstTensorView& logits, int64_t token, VectorView<const float> bias,
                const ResidencyPreference& preference);

 private:
  Router router_;
  std::vector<int32_t> expert_ids_;
  std::vector<float> gate_weights_;
  std::vector<std::byte> workspace_;
  float sacrificed_mass_ = 0.0f;
};

}  // namespace switchyard::tools

// A layer's logits, routed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/buffer.h"
#include "switchyard/router.h"
#include "switchyard/trace.h"
#include "tools/routing_options.h"

namespace switchyard::tools {

/// Owns the results, in memory that the host and the router's backend share.
struct RoutedLayer {
  int32_t index = 0;
  int64_t num_tokens = 0;
  int32_t num_slots = 0;
  Buffer<int32_t> expert_ids;
  Buffer<float> gate_weights;
  Buffer<int64_t> tokens_per_expert;
  Buffer<int64_t> degenerate_rows;  ///< [1]

  [[nodiscard]] MatrixView<const int32_t> ids() const {
    return expert_ids.matrix(num_tokens, num_slots);
  }
};

/// @param layer  with router_logits.
RoutedLayer route_layer(const Router& router, const TraceLayer& layer,
                        VectorView<const float> selection_bias);

/// How to route, or nothing where every layer brings its expert_ids.
/// @throws InvalidArgument  when some of the layers have router_logits and some do not, or an
/// option
///                          says how to route what is routed already.
std::optional<RouterConfig> routing_of(const RoutingOptions& options, const Trace& trace,
                                       const std::vector<const TraceLayer*>& layers);

}  // namespace switchyard::tools

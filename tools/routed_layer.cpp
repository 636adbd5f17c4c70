#include "tools/routed_layer.h"

#include "switchyard/errors.h"
#include "tools/backend_copy.h"

namespace switchyard::tools {

RoutedLayer route_layer(const Router& router, const TraceLayer& layer,
                        VectorView<const float> selection_bias) {
  const RouterConfig& config = router.config();
  const int64_t num_tokens = layer.router_logits.rows;
  const int32_t num_slots = config.num_slots();
  const Backend backend = router.backend();
  RoutedLayer routed{layer.index,
                     num_tokens,
                     num_slots,
                     Buffer<int32_t>(num_tokens * num_slots, backend),
                     Buffer<float>(num_tokens * num_slots, backend),
                     Buffer<int64_t>(config.num_expert_ids(), backend),
                     Buffer<int64_t>(1, backend)};
  RoutingResult result;
  result.expert_ids = routed.expert_ids.matrix(num_tokens, num_slots);
  result.gate_weights = routed.gate_weights.matrix(num_tokens, num_slots);
  result.tokens_per_expert = routed.tokens_per_expert.view();
  result.num_degenerate_rows = routed.degenerate_rows.data();
  Buffer<std::byte> workspace(router.workspace_bytes(num_tokens), backend);
  const BackendTensor logits(layer.router_logits, backend);
  const BackendCopy<float> shared_bias(selection_bias, backend);
  router.route({.logits = logits.view(), .selection_bias = shared_bias.vector()}, result,
               workspace.bytes());
  synchronize(backend);
  return routed;
}

std::optional<RouterConfig> routing_of(const RoutingOptions& options, const Trace& trace,
                                       const std::vector<const TraceLayer*>& layers) {
  const std::string& source = trace.file().source_name();
  std::size_t num_routed = 0;
  for (const TraceLayer* layer : layers) num_routed += layer->router_logits.data != nullptr;
  if (num_routed == layers.size()) return options.router_config(trace);
  if (num_routed > 0) {
    throw InvalidArgument(source +
                          ": some layers have router_logits and some do not; pick with --layer");
  }
  const std::string given = options.first_given();
  if (!given.empty()) {
    throw InvalidArgument(given + " changes nothing: " + source + " has no router_logits");
  }
  return std::nullopt;
}

}  // namespace switchyard::tools

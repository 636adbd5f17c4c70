// What a backend implements to route by hash. HashRouter checks shapes first, so backends trust
// theirs; ids are theirs to check.
#pragma once

#include "switchyard/hash_routing.h"

namespace switchyard {

/// A weight where there are no logits.
inline float plain_hash_weight(const RouterConfig& config) {
  const float share = config.renormalize ? 1.0f / static_cast<float>(config.top_k) : 1.0f;
  return share * config.routed_scaling_factor;
}

class HashRouter::Implementation {
 public:
  explicit Implementation(const RouterConfig& router_config, Backend router_backend)
      : config(router_config), backend(router_backend) {}
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  virtual ~Implementation() = default;

  [[nodiscard]] virtual int64_t workspace_bytes(int64_t max_tokens) const = 0;
  virtual void route(const HashRoutingInputs& inputs, const RoutingResult& result,
                     std::span<std::byte> workspace, StreamView stream) const = 0;

  const RouterConfig config;
  const Backend backend;
};

}  // namespace switchyard

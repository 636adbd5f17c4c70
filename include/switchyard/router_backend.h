// What a backend implements to route. Router checks every argument first, so backends trust theirs.
#pragma once

#include "switchyard/router.h"

namespace switchyard {

class Router::Implementation {
 public:
  explicit Implementation(const RouterConfig& router_config, Backend router_backend)
      : config(router_config), backend(router_backend) {}
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  virtual ~Implementation() = default;

  [[nodiscard]] virtual int64_t workspace_bytes(int64_t max_tokens) const = 0;
  virtual void route(const RoutingInputs& inputs, const RoutingResult& result,
                     std::span<std::byte> workspace, StreamView stream) const = 0;

  const RouterConfig config;
  const Backend backend;
};

}  // namespace switchyard

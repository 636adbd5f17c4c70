// What a backend implements to route. Router checks every argument first, so backends trust theirs.
#pragma once

#include "switchyard/router.h"

namespace switchyard {

/// Whether the choice is made on the logits themselves: softmax is monotone, so without a bias or
/// sums of probabilities no exponential is needed.
inline bool selects_on_logits(const RouterConfig& config, bool has_bias) {
  const bool sums_groups =
      config.num_groups != config.top_groups && config.group_score != GroupScore::kMax;
  return config.score_function == ScoreFunction::kSoftmax && !has_bias && !sums_groups;
}

/// Members whose sum makes a group's score.
inline int32_t group_terms(const RouterConfig& config) {
  switch (config.group_score) {
    case GroupScore::kMax:
      return 1;
    case GroupScore::kTop2Sum:
      return 2;
    case GroupScore::kTopKSum:
      return config.top_k / config.top_groups;
  }
  return 1;
}

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
  /// Routes a call whose arguments nobody has checked yet: one by one that takes longer than to
  /// route a few tokens.
  /// @return false, and nothing written, where that is for the checks and route().
  [[nodiscard]] virtual bool route_usual(const RoutingInputs& /*inputs*/,
                                         const RoutingResult& /*result*/) const {
    return false;
  }

  const RouterConfig config;
  const Backend backend;
};

}  // namespace switchyard

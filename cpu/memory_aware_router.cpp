#include "switchyard/memory_aware_router.h"

#include "cpu/call_checks.h"
#include "cpu/expert_cache_state.h"
#include "cpu/token_call.h"
#include "cpu/view_checks.h"

namespace switchyard {

using cpu::check_range;
using cpu::refuse;
using cpu::TokenOutcome;

class MemoryAwareRouter::Implementation {
 public:
  Implementation(const MemoryAwareRouterConfig& router_config, Backend backend)
      : config(router_config),
        router(config.routing, backend, {.num_threads = 1}),
        cache(config.cache, backend),
        controller(config.controller),
        preference(config.preference) {
    if (backend == Backend::kCpu) {
      kernels = cpu::best_token_kernels(config.routing, true);
    }
    if (config.adapts_bonus) preference.bonus = controller.bonus();
    if (!config.memory_aware) preference.bonus = 0.0f;
  }

  /// Chooses with a preference for residents of `layer`.
  /// @return what is known of a token's experts; kNotRouted: nothing, nor whether it is a token.
  TokenOutcome choose(int32_t layer, const RoutingInputs& inputs, const RoutingResult& result,
                      std::span<std::byte> workspace);
  /// The same by the way of batches.
  void choose_by_router(int32_t layer, const RoutingInputs& inputs, const RoutingResult& result,
                        std::span<std::byte> workspace);
  /// Serves the choices of `result`.
  int64_t serve(int32_t layer, const RoutingResult& result, TokenOutcome outcome,
                VectorView<PagingRequest> requests);

  const MemoryAwareRouterConfig config;
  Router router;
  cpu::TokenKernels kernels;  ///< those that know of residents
  ExpertCache cache;
  BonusController controller;
  ResidencyPreference preference;
};

void validate(const MemoryAwareRouterConfig& config) {
  validate(config.routing);
  validate(config.cache);
  validate(config.controller);
  if (config.cache.memory.num_experts != config.routing.num_experts) {
    refuse("cache.memory.num_experts is ", config.cache.memory.num_experts, ", must be ",
           config.routing.num_experts, " as routing.num_experts");
  }
  if (!config.preference.resident_experts.empty()) {
    refuse("preference.resident_experts has ", config.preference.resident_experts.size,
           " elements, must be empty");
  }
  cpu::check_residency(config.preference, config.routing);
  check_range("prefetch_budget", config.prefetch_budget, 0, config.routing.num_experts);
}

MemoryAwareRouter::MemoryAwareRouter(const MemoryAwareRouterConfig& config, Backend backend) {
  validate(config);
  if (backend != Backend::kReference && backend != Backend::kCpu) {
    refuse("backend is ", name_of(backend), ", must be reference or cpu");
  }
  implementation_ = std::make_unique<Implementation>(config, backend);
}

MemoryAwareRouter::~MemoryAwareRouter() = default;
MemoryAwareRouter::MemoryAwareRouter(MemoryAwareRouter&&) noexcept = default;
MemoryAwareRouter& MemoryAwareRouter::operator=(MemoryAwareRouter&&) noexcept = default;

const MemoryAwareRouterConfig& MemoryAwareRouter::config() const { return implementation_->config; }
const Router& MemoryAwareRouter::router() const { return implementation_->router; }
ExpertCache& MemoryAwareRouter::cache() { return implementation_->cache; }
const ExpertCache& MemoryAwareRouter::cache() const { return implementation_->cache; }
float MemoryAwareRouter::bonus() const { return implementation_->preference.bonus; }

int64_t MemoryAwareRouter::max_requests(int64_t num_tokens) const {
  return cache().max_requests(num_tokens, config().routing.top_k) +
         2 * int64_t{config().prefetch_budget};
}

inline TokenOutcome MemoryAwareRouter::Implementation::choose(int32_t layer,
                                                              const RoutingInputs& inputs,
                                                              const RoutingResult& result,
                                                              std::span<std::byte> workspace) {
  if (!inputs.residency.resident_experts.empty()) {
    refuse("inputs.residency.resident_experts has ", inputs.residency.resident_experts.size,
           " elements, must be empty");
  }
  const ExpertCache::Implementation& state = *cache.implementation_;
  const auto num_layers = static_cast<uint32_t>(state.config.memory.num_layers);
  if (kernels.route != nullptr && static_cast<uint32_t>(layer) < num_layers &&
      cpu::is_token_call(config.routing, inputs, result)) {
    preference.resident_experts = state.resident_flags(layer);
    const ResidencyPreference* const active = preference.is_active() ? &preference : nullptr;
    const auto outcome = cpu::route_token(kernels, config.routing, inputs, result, active);
    if (outcome != TokenOutcome::kNotRouted) {
      return active != nullptr ? outcome : TokenOutcome::kNotRouted;
    }
  }
  choose_by_router(layer, inputs, result, workspace);
  return TokenOutcome::kNotRouted;
}

void MemoryAwareRouter::Implementation::choose_by_router(int32_t layer, const RoutingInputs& inputs,
                                                         const RoutingResult& result,
                                                         std::span<std::byte> workspace) {
  RoutingInputs aware = inputs;
  aware.residency = preference;
  aware.residency.resident_experts = cache.resident_experts(layer);
  router.route(aware, result, workspace);
}

inline int64_t MemoryAwareRouter::Implementation::serve(int32_t layer, const RoutingResult& result,
                                                        TokenOutcome outcome,
                                                        VectorView<PagingRequest> requests) {
  const MatrixView<int32_t>& ids = result.expert_ids;
  const int32_t top_k = config.routing.top_k;
  if (ids.rows != 1) {
    return cache.serve(layer, {ids.data, ids.rows, top_k, ids.row_stride}, requests);
  }
  const VectorView<const int32_t> token(ids.data, top_k);
  if (outcome == TokenOutcome::kNotRouted || (requests.size > 0) != (requests.data != nullptr)) {
    return cache.serve_token(layer, token, requests);
  }
  return cache.implementation_->serve_known_token(
      layer, token, outcome == TokenOutcome::kRoutedToResidents, requests);
}

int64_t MemoryAwareRouter::route(int32_t layer, const RoutingInputs& inputs,
                                 const RoutingResult& result, VectorView<PagingRequest> requests,
                                 std::span<std::byte> workspace) {
  Implementation& self = *implementation_;
  const int64_t prefetch_requests = 2 * int64_t{self.config.prefetch_budget};
  if (requests.size < prefetch_requests) {
    refuse("requests has ", requests.size, " elements, must have at least ", prefetch_requests);
  }
  const TokenOutcome outcome = self.choose(layer, inputs, result, workspace);
  const VectorView<PagingRequest> urgent(requests.data, requests.size - prefetch_requests);
  const MemoryMetrics& metrics = self.cache.metrics();
  const int64_t hits = metrics.hits;
  const int64_t misses = metrics.misses;
  int64_t written = self.serve(layer, result, outcome, urgent);
  if (self.config.adapts_bonus && self.config.memory_aware) {
    self.controller.observe(metrics.hits - hits, metrics.misses - misses);
    self.preference.bonus = self.controller.bonus();
  }
  if (self.config.prefetch_budget > 0) {
    written += self.cache.prefetch(layer, self.config.prefetch_budget,
                                   {requests.data + written, requests.size - written});
  }
  return written;
}

}  // namespace switchyard

#include "switchyard/memory_aware_router.h"

#include "cpu/call_checks.h"
#include "cpu/view_checks.h"

namespace switchyard {

using cpu::check_range;
using cpu::refuse;

class MemoryAwareRouter::Implementation {
 public:
  Implementation(const MemoryAwareRouterConfig& router_config, Backend backend)
      : config(router_config),
        router(config.routing, backend, {.num_threads = 1}),
        cache(config.cache, backend),
        controller(config.controller),
        preference(config.preference) {
    if (config.adapts_bonus) preference.bonus = controller.bonus();
    if (!config.memory_aware) preference.bonus = 0.0f;
  }

  const MemoryAwareRouterConfig config;
  Router router;
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

int64_t MemoryAwareRouter::route(int32_t layer, const RoutingInputs& inputs,
                                 const RoutingResult& result, VectorView<PagingRequest> requests,
                                 std::span<std::byte> workspace) {
  Implementation& self = *implementation_;
  if (!inputs.residency.resident_experts.empty()) {
    refuse("inputs.residency.resident_experts has ", inputs.residency.resident_experts.size,
           " elements, must be empty");
  }
  const int64_t prefetch_requests = 2 * int64_t{self.config.prefetch_budget};
  if (requests.size < prefetch_requests) {
    refuse("requests has ", requests.size, " elements, must have at least ", prefetch_requests);
  }
  RoutingInputs aware = inputs;
  aware.residency = self.preference;
  aware.residency.resident_experts = self.cache.resident_experts(layer);
  self.router.route(aware, result, workspace);
  const VectorView<PagingRequest> urgent(requests.data, requests.size - prefetch_requests);
  const MemoryMetrics& metrics = self.cache.metrics();
  const int64_t hits = metrics.hits;
  const int64_t misses = metrics.misses;
  const MatrixView<int32_t>& ids = result.expert_ids;
  const int32_t top_k = self.config.routing.top_k;
  int64_t written = 0;
  if (ids.rows == 1) {
    written = self.cache.serve_token(layer, {ids.data, top_k}, urgent);
  } else {
    written = self.cache.serve(layer, {ids.data, ids.rows, top_k, ids.row_stride}, urgent);
  }
  if (self.config.adapts_bonus && self.config.memory_aware) {
    self.controller.observe(self.cache.metrics().hits - hits, self.cache.metrics().misses - misses);
    self.preference.bonus = self.controller.bonus();
  }
  if (self.config.prefetch_budget > 0) {
    written += self.cache.prefetch(layer, self.config.prefetch_budget,
                                   {requests.data + written, requests.size - written});
  }
  return written;
}

}  // namespace switchyard

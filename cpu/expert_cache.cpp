// The front door of the cache of experts: checks every call's arguments, then hands over.
#include "switchyard/expert_cache.h"

#include <cmath>
#include <cstring>

#include "cpu/expert_cache_state.h"
#include "cpu/view_checks.h"

namespace switchyard {

using cpu::check_range;
using cpu::check_vector;
using cpu::refuse;

namespace {

constexpr const char* kPolicies[] = {"lru", "lfu", "adaptive", "affinity", "belady"};
constexpr double kLeastDecay = 1e-6;
/// Rows and columns of one call, so that their product stays far inside int64.
constexpr int64_t kMaxRows = int64_t{1} << 40;

void check_cost(const char* name, double value) {
  if (!std::isfinite(value) || value < 0.0) {
    refuse(name, " is ", value, ", must be finite and 0 or more");
  }
}

void check_requests(VectorView<PagingRequest> requests) {
  check_vector("requests", requests, std::max<int64_t>(requests.size, 0));
}

void check_layer(const ExpertCache::Implementation& cache, int32_t layer) {
  check_range("layer", layer, 0, cache.config.memory.num_layers - 1);
}

void check_expert(const ExpertCache::Implementation& cache, int32_t layer, int32_t expert) {
  check_layer(cache, layer);
  check_range("expert", expert, 0, cache.config.memory.num_experts - 1);
}

void check_at_least(VectorView<PagingRequest> requests, int64_t needed) {
  check_requests(requests);
  if (requests.size < needed) {
    refuse("requests has ", requests.size, " elements, must have at least ", needed);
  }
}

}  // namespace

const char* name_of(EvictionPolicy policy) { return kPolicies[static_cast<size_t>(policy)]; }

EvictionPolicy eviction_policy_of(const char* name) {
  for (size_t i = 0; i < std::size(kPolicies); ++i) {
    if (std::strcmp(name, kPolicies[i]) == 0) return static_cast<EvictionPolicy>(i);
  }
  refuse("policy is '", name, "', must be lru, lfu, adaptive, affinity or belady");
}

void validate(const PagingCosts& costs) {
  check_cost("miss_us", costs.miss_us);
  check_cost("upload_us", costs.upload_us);
}

void validate(const ExpertCacheConfig& config) {
  validate(config.memory);
  check_range("policy", static_cast<int64_t>(config.policy), 0,
              static_cast<int64_t>(EvictionPolicy::kBelady));
  if (!(config.decay >= kLeastDecay && config.decay <= 1.0)) {
    refuse("decay is ", config.decay, ", must be in [1e-6, 1]");
  }
  validate(config.costs);
  if (!(config.prefetch_threshold >= 0.0 && config.prefetch_threshold <= 1.0)) {
    refuse("prefetch_threshold is ", config.prefetch_threshold, ", must be in [0, 1]");
  }
}

ExpertCache::ExpertCache(const ExpertCacheConfig& config, Backend backend) {
  validate(config);
  implementation_ = std::make_unique<Implementation>(config, backend);
}

ExpertCache::~ExpertCache() = default;
ExpertCache::ExpertCache(ExpertCache&&) noexcept = default;
ExpertCache& ExpertCache::operator=(ExpertCache&&) noexcept = default;

const ExpertCacheConfig& ExpertCache::config() const { return implementation_->config; }

const Residency& ExpertCache::residency() const { return implementation_->residency; }

VectorView<const uint8_t> ExpertCache::resident_experts(int32_t layer) const {
  return implementation_->residency.resident_experts(layer);
}

int64_t ExpertCache::max_requests(int64_t num_tokens, int64_t top_k) const {
  check_range("num_tokens", num_tokens, 0, kMaxRows);
  check_range("top_k", top_k, 0, kMaxResidencyExperts);
  return 2 * std::min<int64_t>(num_tokens * top_k, config().memory.num_experts);
}

bool ExpertCache::access(int32_t layer, int32_t expert) {
  check_expert(*implementation_, layer, expert);
  PagingRequest unwanted[2];
  const int64_t misses = implementation_->metrics.misses;
  serve_token(layer, {&expert, 1}, {unwanted, 2});
  return implementation_->metrics.misses == misses;
}

int64_t ExpertCache::admit(int32_t layer, int32_t expert, PagingPriority priority,
                           VectorView<PagingRequest> requests) {
  check_expert(*implementation_, layer, expert);
  check_range("priority", static_cast<int64_t>(priority), 0,
              static_cast<int64_t>(PagingPriority::kUrgent));
  check_requests(requests);
  return implementation_->admit(layer, expert, priority, requests);
}

int64_t ExpertCache::prefetch(int32_t layer, int32_t budget, VectorView<PagingRequest> requests) {
  check_layer(*implementation_, layer);
  check_range("budget", budget, 0, config().memory.num_experts);
  check_at_least(requests, 2 * int64_t{budget});
  return implementation_->prefetch(layer, budget, requests);
}

int64_t ExpertCache::evict(int32_t layer, int32_t expert, VectorView<PagingRequest> requests) {
  check_expert(*implementation_, layer, expert);
  check_requests(requests);
  if (!implementation_->residency.is_resident(layer, expert)) return 0;
  if (implementation_->residency.is_pinned(layer, expert)) {
    refuse("expert ", expert, " of layer ", layer, " is pinned, must not leave fast memory");
  }
  check_at_least(requests, 1);
  implementation_->leave(layer, expert);
  requests[0] = {layer, expert, PagingDirection::kOut, PagingPriority::kNormal};
  return 1;
}

int32_t ExpertCache::next_victim(int32_t layer) const {
  check_layer(*implementation_, layer);
  return implementation_->next_victim(layer);
}

void ExpertCache::pin(int32_t layer, int32_t expert) {
  check_expert(*implementation_, layer, expert);
  if (!implementation_->residency.is_resident(layer, expert)) {
    refuse("expert ", expert, " of layer ", layer, " is not resident, must be to be pinned");
  }
  implementation_->residency.pin(layer, expert);
  implementation_->refresh_key(layer, expert);
}

void ExpertCache::unpin(int32_t layer, int32_t expert) {
  check_expert(*implementation_, layer, expert);
  implementation_->residency.unpin(layer, expert);
  implementation_->refresh_key(layer, expert);
}

int64_t ExpertCache::set_fast_slots(int32_t layer, int32_t slots,
                                    VectorView<PagingRequest> requests) {
  check_layer(*implementation_, layer);
  check_range("fast_slots", slots, 0, config().memory.num_experts);
  const Residency& residency = implementation_->residency;
  if (slots < residency.num_pinned(layer)) {
    refuse("fast_slots of layer ", layer, " is ", slots, ", must be at least the ",
           residency.num_pinned(layer), " that are pinned");
  }
  check_at_least(requests, std::max(0, residency.num_resident(layer) - slots));
  return implementation_->set_fast_slots(layer, slots, requests);
}

void ExpertCache::plan_accesses(int32_t layer, VectorView<const int32_t> expert_ids) {
  check_layer(*implementation_, layer);
  check_vector("expert_ids", expert_ids, std::max<int64_t>(expert_ids.size, 0));
  if (config().policy != EvictionPolicy::kBelady) {
    refuse("policy is ", name_of(config().policy), ", must be belady to plan accesses");
  }
  const int32_t num_experts = config().memory.num_experts;
  for (int64_t i = 0; i < expert_ids.size; ++i) {
    if (expert_ids[i] < -1 || expert_ids[i] >= num_experts) {
      refuse("expert_ids[", i, "] is ", expert_ids[i], ", must be in [-1, ", num_experts - 1, "]");
    }
  }
  implementation_->plan_accesses(layer, expert_ids);
}

bool ExpertCache::prefetch_pays(double probability, double victim_probability) const {
  return implementation_->prefetch_pays(probability, victim_probability);
}

double ExpertCache::use_probability(int32_t layer, int32_t expert) const {
  check_expert(*implementation_, layer, expert);
  return implementation_->use_probability(implementation_->layers[static_cast<size_t>(layer)],
                                          expert);
}

const MemoryMetrics& ExpertCache::metrics() const { return implementation_->metrics; }

void ExpertCache::reset_metrics() { implementation_->metrics.reset(); }

}  // namespace switchyard

#include "tools/offload_replay.h"

#include <algorithm>
#include <utility>

#include "switchyard/expert_prefetcher.h"

namespace switchyard::tools {
namespace {

constexpr int64_t kMostParts = 96;  ///< of the trace, for its course

/// One run's state.
class Run {
 public:
  Run(const OffloadConfig& config, int32_t num_layers, int32_t num_experts, int32_t top_k,
      int64_t num_tokens)
      : config_(config),
        cache_({.memory = {.num_layers = num_layers,
                           .num_experts = num_experts,
                           .fast_slots = config.fast_slots},
                .policy = config.policy,
                .decay = config.decay,
                .learn_transitions = config.learn_transitions,
                .costs = config.costs}),
        preference_(config.preference),
        requests_(static_cast<size_t>(
            std::max<int64_t>(cache_.max_requests(1, top_k), 2 * config.prefetch_budget))),
        part_tokens_((num_tokens + kMostParts - 1) / kMostParts) {
    if (config.prefetch) prefetcher_.emplace(prefetcher_config(num_layers, num_experts));
    if (config.target_hit_rate) {
      controller_.emplace(
          BonusControllerConfig{.target_hit_rate = *config.target_hit_rate,
                                .initial_bonus = std::min(config.preference.bonus, 1.0f)});
    }
    results_.config = config;
    results_.layers.resize(static_cast<size_t>(num_layers));
  }

  ExpertCache& cache() { return cache_; }
  /// With what is resident now.
  [[nodiscard]] ResidencyPreference preference(int32_t layer) const {
    ResidencyPreference preference = preference_;
    preference.resident_experts = cache_.resident_experts(layer);
    return preference;
  }

  void prefetch(int32_t layer, VectorView<const int32_t> before) {
    if (!prefetcher_) return;
    const int64_t page_ins = cache_.metrics().page_ins;
    prefetcher_->prefetch(cache_, layer, before, requests());
    results_.prefetches += cache_.metrics().page_ins - page_ins;
  }

  void serve(int32_t layer, VectorView<const int32_t> before, VectorView<const int32_t> chosen,
             float sacrificed_mass) {
    const MemoryMetrics was = cache_.metrics();
    if (config_.policy == EvictionPolicy::kAffinity) {
      cache_.serve_token(layer, chosen, requests());
    } else {
      for (int64_t slot = 0; slot < chosen.size; ++slot) {
        cache_.serve_token(layer, {chosen.data + slot, 1}, requests());
      }
    }
    if (prefetcher_) prefetcher_->learn(layer, before, chosen);
    const int64_t hits = cache_.metrics().hits - was.hits;
    const int64_t misses = cache_.metrics().misses - was.misses;
    OffloadedLayer& told = results_.layers[static_cast<size_t>(layer)];
    told.hits += hits;
    told.misses += misses;
    told.sacrificed_mass_sum += static_cast<double>(sacrificed_mass);
    told.sacrificed_mass_max =
        std::max(told.sacrificed_mass_max, static_cast<double>(sacrificed_mass));
    ++results_.num_rows;
    if (!controller_) return;
    controller_->observe(hits, misses);
    preference_.bonus = controller_->bonus();
  }

  void end_token(int64_t token, int64_t num_tokens) {
    if ((token + 1) % part_tokens_ != 0 && token + 1 != num_tokens) return;
    const MemoryMetrics& now = cache_.metrics();
    const MemoryMetrics part{.hits = now.hits - part_.hits, .misses = now.misses - part_.misses};
    results_.hit_rate_over_time.push_back(part.hit_rate());
    part_ = now;
  }

  OffloadResults finish() {
    results_.metrics = cache_.metrics();
    results_.last_bonus = preference_.bonus;
    return std::move(results_);
  }

 private:
  [[nodiscard]] ExpertPrefetcherConfig prefetcher_config(int32_t num_layers,
                                                         int32_t num_experts) const {
    return {
        .num_layers = num_layers, .num_experts = num_experts, .budget = config_.prefetch_budget};
  }
  VectorView<PagingRequest> requests() {
    return {requests_.data(), static_cast<int64_t>(requests_.size())};
  }

  const OffloadConfig& config_;
  ExpertCache cache_;
  ResidencyPreference preference_;
  std::vector<PagingRequest> requests_;
  std::optional<ExpertPrefetcher> prefetcher_;
  std::optional<BonusController> controller_;
  int64_t part_tokens_;
  MemoryMetrics part_;
  OffloadResults results_;
};

}  // namespace

double OffloadResults::sacrificed_mass_mean() const {
  double sum = 0.0;
  for (const OffloadedLayer& layer : layers) sum += layer.sacrificed_mass_sum;
  return num_rows > 0 ? sum / static_cast<double>(num_rows) : 0.0;
}

double OffloadResults::sacrificed_mass_max() const {
  double most = 0.0;
  for (const OffloadedLayer& layer : layers) most = std::max(most, layer.sacrificed_mass_max);
  return most;
}

double OffloadResults::estimated_seconds() const {
  const auto useless = static_cast<double>(prefetches - metrics.prefetch_hits);
  const auto misses = static_cast<double>(metrics.misses);
  return (misses * config.costs.miss_us + useless * config.costs.upload_us) * 1e-6;
}

OffloadReplay::OffloadReplay(const Trace& trace, std::vector<const TraceLayer*> layers,
                             const std::optional<RouterConfig>& routing,
                             const RoutingOptions& options)
    : layers_(std::move(layers)),
      routing_(routing),
      num_tokens_(trace.num_tokens()),
      num_experts_(trace.num_experts()),
      top_k_(routing ? routing->top_k : trace.top_k()) {
  if (!routing_) return;
  routing_->num_shared_experts = 0;  // they are always needed and so always there
  const Router router(*routing_, options.backend(), options.threads());
  for (const TraceLayer* layer : layers_) {
    biases_.push_back(options.selection_bias(trace, *layer));
    routed_.push_back(route_layer(router, *layer, biases_.back()));
  }
}

MatrixView<const int32_t> OffloadReplay::plain_ids(size_t layer) const {
  return routing_ ? routed_[layer].ids() : layers_[layer]->expert_ids;
}

OffloadResults OffloadReplay::run(const OffloadConfig& config) const {
  const auto num_layers = static_cast<int32_t>(layers_.size());
  Run run(config, num_layers, num_experts_, top_k_, num_tokens_);
  std::optional<TokenSelector> selector;
  if (config.preference.bonus != 0.0f || config.target_hit_rate) selector.emplace(*routing_);
  if (config.policy == EvictionPolicy::kBelady) {
    std::vector<int32_t> accesses;
    for (int32_t layer = 0; layer < num_layers; ++layer) {
      const MatrixView<const int32_t> ids = plain_ids(static_cast<size_t>(layer));
      accesses.clear();
      for (int64_t token = 0; token < num_tokens_; ++token) {
        accesses.insert(accesses.end(), ids.row(token), ids.row(token) + top_k_);
      }
      run.cache().plan_accesses(layer, {accesses.data(), static_cast<int64_t>(accesses.size())});
    }
  }
  // What the prefetcher predicts from: the layer before, and in the first the token before.
  std::vector<int32_t> before;
  std::vector<int32_t> first;
  for (int64_t token = 0; token < num_tokens_; ++token) {
    before = first;
    for (int32_t layer = 0; layer < num_layers; ++layer) {
      const auto index = static_cast<size_t>(layer);
      const VectorView<const int32_t> seen(before.data(), static_cast<int64_t>(before.size()));
      run.prefetch(layer, seen);
      TokenSelector::Choice choice{{plain_ids(index).row(token), top_k_}, 0.0f};
      if (selector) {
        choice = selector->select(layers_[index]->router_logits, token, biases_[index],
                                  run.preference(layer));
      }
      run.serve(layer, seen, choice.expert_ids, choice.sacrificed_mass);
      before.assign(choice.expert_ids.data, choice.expert_ids.data + choice.expert_ids.size);
      if (layer == 0) first = before;
    }
    run.end_token(token, num_tokens_);
  }
  OffloadResults results = run.finish();
  for (size_t i = 0; i < layers_.size(); ++i) results.layers[i].index = layers_[i]->index;
  return results;
}

}  // namespace switchyard::tools

// A trace played again with fast memory for some of each layer's experts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "switchyard/bonus_controller.h"
#include "switchyard/expert_cache.h"
#include "tools/routed_layer.h"
#include "tools/token_selector.h"

namespace switchyard::tools {

struct OffloadConfig {
  EvictionPolicy policy = EvictionPolicy::kAffinity;
  int32_t fast_slots = 0;
  double decay = 0.97;
  bool learn_transitions = true;
  bool prefetch = false;
  int32_t prefetch_budget = 4;
  PagingCosts costs;
  ResidencyPreference preference;  ///< without resident_experts; a bonus of 0 changes nothing
  std::optional<double> target_hit_rate;  ///< the bonus follows it
};

/// What came of one layer.
struct OffloadedLayer {
  int32_t index = 0;
  int64_t hits = 0;
  int64_t misses = 0;
  double sacrificed_mass_sum = 0.0;
  double sacrificed_mass_max = 0.0;
};

struct OffloadResults {
  OffloadConfig config;
  MemoryMetrics metrics;
  int64_t prefetches = 0;
  int64_t num_rows = 0;  ///< tokens of all layers
  float last_bonus = 0.0f;
  std::vector<OffloadedLayer> layers;
  std::vector<double> hit_rate_over_time;  ///< of equal parts of the trace

  [[nodiscard]] double sacrificed_mass_mean() const;
  [[nodiscard]] double sacrificed_mass_max() const;
  /// What misses and useless uploads take.
  [[nodiscard]] double estimated_seconds() const;
};

class OffloadReplay {
 public:
  /// @param routing  how to route the layers' logits; nothing where the layers bring expert_ids.
  OffloadReplay(const Trace& trace, std::vector<const TraceLayer*> layers,
                const std::optional<RouterConfig>& routing, const RoutingOptions& options);

  [[nodiscard]] int64_t num_tokens() const { return num_tokens_; }
  [[nodiscard]] int32_t num_experts() const { return num_experts_; }
  [[nodiscard]] int32_t top_k() const { return top_k_; }
  [[nodiscard]] bool can_choose() const { return routing_.has_value(); }

  /// Tokens in order, each through all layers. The textbook policies (lru, lfu, adaptive, belady)
  /// see one access after another, affinity all experts of a token at once.
  [[nodiscard]] OffloadResults run(const OffloadConfig& config) const;

 private:
  [[nodiscard]] MatrixView<const int32_t> plain_ids(size_t layer) const;

  std::vector<const TraceLayer*> layers_;
  std::optional<RouterConfig> routing_;
  std::vector<VectorView<const float>> biases_;
  std::vector<RoutedLayer> routed_;  ///< without any preference
  int64_t num_tokens_;
  int32_t num_experts_;
  int32_t top_k_;
};

}  // namespace switchyard::tools

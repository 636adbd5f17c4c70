#include "tools/offload_report.h"

#include <algorithm>
#include <limits>

#include "pages.h"
#include "tools/report.h"

namespace switchyard::tools {
namespace {

using Json = nlohmann::ordered_json;

constexpr EvictionPolicy kPolicies[] = {EvictionPolicy::kLru, EvictionPolicy::kLfu,
                                        EvictionPolicy::kAdaptive, EvictionPolicy::kAffinity,
                                        EvictionPolicy::kBelady};
constexpr int32_t kSizes = 8;  ///< numbers of slots that are compared
constexpr float kShares[] = {0.0f, 0.005f, 0.01f, 0.02f, 0.05f, 0.1f};

/// Without what changes the choice or runs ahead of it.
OffloadConfig plain(OffloadConfig config, EvictionPolicy policy) {
  config.policy = policy;
  config.prefetch = false;
  config.preference = {};
  config.target_hit_rate.reset();
  return config;
}

Json summary(const OffloadResults& results) {
  Json layers = Json::array();
  for (const OffloadedLayer& layer : results.layers) {
    const MemoryMetrics counts{.hits = layer.hits, .misses = layer.misses};
    layers.push_back(counts.hit_rate());
  }
  return {{"policy", name_of(results.config.policy)},
          {"hit_rate", results.metrics.hit_rate()},
          {"hits", results.metrics.hits},
          {"misses", results.metrics.misses},
          {"page_ins", results.metrics.page_ins},
          {"evictions", results.metrics.page_outs},
          {"prefetches", results.prefetches},
          {"prefetch_hits", results.metrics.prefetch_hits},
          {"seconds", results.estimated_seconds()},
          {"sacrificed_mean", results.sacrificed_mass_mean()},
          {"sacrificed_max", results.sacrificed_mass_max()},
          {"over_time", results.hit_rate_over_time},
          {"layers", std::move(layers)}};
}

/// Hit rates by slots, a curve for each policy.
Json curves_by_slots(const OffloadReplay& replay, const OffloadConfig& config) {
  std::vector<int32_t> slots{config.fast_slots};
  for (int32_t i = 1; i <= kSizes; ++i) slots.push_back(replay.num_experts() * i / kSizes);
  std::sort(slots.begin(), slots.end());
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  Json curves = Json::object();
  for (const EvictionPolicy policy : kPolicies) {
    Json points = Json::array();
    for (const int32_t count : slots) {
      OffloadConfig other = plain(config, policy);
      other.fast_slots = count;
      points.push_back({count, replay.run(other).metrics.hit_rate()});
    }
    curves[name_of(policy)] = std::move(points);
  }
  return curves;
}

/// What a bound on the sacrificed share buys.
Json curve_by_share(const OffloadReplay& replay, OffloadConfig config) {
  Json points = Json::array();
  if (!replay.can_choose() || config.policy == EvictionPolicy::kBelady) return points;
  config.target_hit_rate.reset();
  if (config.preference.bonus == 0.0f)
    config.preference.bonus = std::numeric_limits<float>::infinity();
  for (const float share : kShares) {
    config.preference.max_sacrificed_share = share;
    const OffloadResults results = replay.run(config);
    points.push_back({{"epsilon", share},
                      {"hit_rate", results.metrics.hit_rate()},
                      {"sacrificed_mean", results.sacrificed_mass_mean()}});
  }
  return points;
}

}  // namespace

OffloadStudy study_offload(const OffloadReplay& replay, const OffloadConfig& config) {
  OffloadStudy study;
  study.chosen = replay.run(config);
  for (const EvictionPolicy policy : kPolicies) {
    study.plain.push_back(replay.run(plain(config, policy)));
  }
  return study;
}

std::string offload_page(const std::string& trace, const OffloadReplay& replay,
                         const OffloadStudy& study) {
  Json layers = Json::array();
  for (const OffloadedLayer& layer : study.chosen.layers) layers.push_back(layer.index);
  Json plain_rows = Json::array();
  for (const OffloadResults& results : study.plain) plain_rows.push_back(summary(results));
  const OffloadConfig& config = study.chosen.config;
  return page_with(kOffloadPage, {{"trace", trace},
                                  {"num_tokens", replay.num_tokens()},
                                  {"num_experts", replay.num_experts()},
                                  {"top_k", replay.top_k()},
                                  {"fast_slots", config.fast_slots},
                                  {"miss_us", config.costs.miss_us},
                                  {"upload_us", config.costs.upload_us},
                                  {"bonus", config.preference.bonus},
                                  {"epsilon", config.preference.max_sacrificed_share},
                                  {"layers", std::move(layers)},
                                  {"chosen", summary(study.chosen)},
                                  {"plain", std::move(plain_rows)},
                                  {"by_slots", curves_by_slots(replay, config)},
                                  {"by_share", curve_by_share(replay, config)}});
}

}  // namespace switchyard::tools

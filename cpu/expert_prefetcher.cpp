#include "switchyard/expert_prefetcher.h"

#include <algorithm>

#include "cpu/view_checks.h"

namespace switchyard {

using cpu::check_range;
using cpu::check_vector;
using cpu::refuse;

namespace {

constexpr int32_t kMostPrefetches = 64;
/// Trials after which a bin halves, so that it follows the traffic.
constexpr int64_t kMostTrials = 4096;
constexpr double kPriorTrials = 2.0;

}  // namespace

void validate(const ExpertPrefetcherConfig& config) {
  check_range("num_layers", config.num_layers, 1, kMaxResidencyLayers);
  check_range("num_experts", config.num_experts, 1, kMaxResidencyExperts);
  check_range("budget", config.budget, 1, kMostPrefetches);
}

ExpertPrefetcher::ExpertPrefetcher(const ExpertPrefetcherConfig& config)
    : config_((validate(config), config)),
      transitions_(static_cast<size_t>(config.num_layers), ExpertTransitions(config.num_experts)),
      predictions_(static_cast<size_t>(config.num_experts)),
      candidates_(static_cast<size_t>(config.num_layers)),
      bins_(kNumBins) {
  for (auto& candidates : candidates_) candidates.reserve(static_cast<size_t>(config.budget) + 1);
}

void ExpertPrefetcher::check_layer(int32_t layer) const {
  check_range("layer", layer, 0, config_.num_layers - 1);
}

size_t ExpertPrefetcher::bin_of(float prediction) {
  const auto bin = static_cast<int32_t>(prediction * static_cast<float>(kNumBins));
  return static_cast<size_t>(std::clamp(bin, 0, kNumBins - 1));
}

double ExpertPrefetcher::expected_precision(float prediction) const {
  const Bin& bin = bins_[bin_of(prediction)];
  return (static_cast<double>(bin.uses) + kPriorTrials * static_cast<double>(prediction)) /
         (static_cast<double>(bin.trials) + kPriorTrials);
}

void ExpertPrefetcher::choose_candidates(const ExpertCache& cache, int32_t layer) {
  std::vector<Candidate>& best = candidates_[static_cast<size_t>(layer)];
  best.clear();
  const auto budget = static_cast<size_t>(config_.budget);
  const VectorView<const uint8_t> resident = cache.resident_experts(layer);
  for (int32_t expert = 0; expert < config_.num_experts; ++expert) {
    const float prediction = predictions_[static_cast<size_t>(expert)];
    if (resident[expert] != 0 || prediction <= 0.0f) continue;
    if (best.size() == budget && prediction <= best.back().prediction) continue;
    const auto place = std::find_if(best.begin(), best.end(), [&](const Candidate& other) {
      return other.prediction < prediction;
    });
    best.insert(place, {expert, prediction});
    if (best.size() > budget) best.pop_back();
  }
}

int64_t ExpertPrefetcher::prefetch(ExpertCache& cache, int32_t layer,
                                   VectorView<const int32_t> from,
                                   VectorView<PagingRequest> requests) {
  check_layer(layer);
  const ResidencyConfig& memory = cache.config().memory;
  if (memory.num_layers != config_.num_layers || memory.num_experts != config_.num_experts) {
    refuse("cache has ", memory.num_layers, " layers of ", memory.num_experts,
           " experts, must have ", config_.num_layers, " of ", config_.num_experts);
  }
  check_vector("requests", requests, std::max<int64_t>(requests.size, 0));
  if (requests.size < 2 * int64_t{config_.budget}) {
    refuse("requests has ", requests.size, " elements, must have at least ", 2 * config_.budget);
  }
  for (int32_t expert = 0; expert < config_.num_experts; ++expert) {
    predictions_[static_cast<size_t>(expert)] =
        static_cast<float>(cache.use_probability(layer, expert));
  }
  const VectorView<float> predictions(predictions_.data(), config_.num_experts);
  transitions_[static_cast<size_t>(layer)].predict(from, predictions, predictions);
  choose_candidates(cache, layer);
  int64_t written = 0;
  for (const Candidate& candidate : candidates_[static_cast<size_t>(layer)]) {
    const int32_t victim = cache.next_victim(layer);
    double lost = 0.0;
    if (victim >= 0) lost = expected_precision(predictions_[static_cast<size_t>(victim)]);
    if (!cache.prefetch_pays(expected_precision(candidate.prediction), lost)) continue;
    written += cache.admit(layer, candidate.expert, PagingPriority::kPrefetch,
                           {requests.data + written, requests.size - written});
  }
  return written;
}

void ExpertPrefetcher::learn(int32_t layer, VectorView<const int32_t> from,
                             VectorView<const int32_t> experts) {
  check_layer(layer);
  const auto index = static_cast<size_t>(layer);
  transitions_[index].learn(from, experts);
  for (const Candidate& candidate : candidates_[index]) {
    Bin& bin = bins_[bin_of(candidate.prediction)];
    if (++bin.trials >= kMostTrials) {
      bin.trials /= 2;
      bin.uses /= 2;
    }
    for (int64_t i = 0; i < experts.size; ++i) {
      if (experts[i] == candidate.expert) {
        ++bin.uses;
        break;
      }
    }
  }
  candidates_[index].clear();
}

}  // namespace switchyard

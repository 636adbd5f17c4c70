// Brings experts into fast memory before the router asks for them, where that pays.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/expert_cache.h"
#include "switchyard/expert_transitions.h"
#include "switchyard/paging_request.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

struct ExpertPrefetcherConfig {
  int32_t num_layers = 1;   ///< as the cache's
  int32_t num_experts = 0;  ///< as the cache's
  int32_t budget = 4;       ///< prefetches a call, 1 to 64

  bool operator==(const ExpertPrefetcherConfig&) const = default;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const ExpertPrefetcherConfig& config);

/// Predicts a layer's experts from those that were chosen just before: by the same token in the
/// layer before, or in the first layer by the token before. Both are the caller's to hand in, as
/// long as a layer always gets the same kind.
///
/// Predictions are the means of ExpertTransitions::predict(), with the cache's use_probability() as
/// the prior. What they are worth is measured as tokens pass: predictions of about the same value
/// share a bin, which counts how many came true, whether or not they were acted on. That share is
/// the expected precision, by which ExpertCache::prefetch_pays() decides.
///
/// Memory is allocated by the constructor alone. Calls are made one at a time. Deterministic in
/// every bit.
class ExpertPrefetcher {
 public:
  static constexpr int32_t kNumBins = 32;

  /// @throws InvalidArgument, std::bad_alloc
  explicit ExpertPrefetcher(const ExpertPrefetcherConfig& config);

  [[nodiscard]] const ExpertPrefetcherConfig& config() const { return config_; }

  /// Admits what is likely to be chosen in `layer` into the cache.
  ///
  /// @param from      the experts chosen just before; -1 and an empty list are legal.
  /// @param requests  as ExpertCache::admit(), of prefetch priority; 2 * budget are always enough.
  /// @return how many were written.
  /// @throws InvalidArgument  for a cache of another shape, a layer or an id out of range, or fewer
  ///                          than 2 * budget requests; nothing has changed then.
  int64_t prefetch(ExpertCache& cache, int32_t layer, VectorView<const int32_t> from,
                   VectorView<PagingRequest> requests);

  /// Tells what was chosen in `layer` after `from`, and so whether predictions came true.
  /// @throws InvalidArgument  for a layer or an id out of range; nothing is learnt then.
  void learn(int32_t layer, VectorView<const int32_t> from, VectorView<const int32_t> experts);

  /// The share of predictions of about that value that came true; the value itself at first.
  [[nodiscard]] double expected_precision(float prediction) const;

 private:
  struct Candidate {
    int32_t expert = -1;
    float prediction = 0.0f;
  };
  struct Bin {
    int64_t trials = 0;
    int64_t uses = 0;
  };

  void check_layer(int32_t layer) const;
  [[nodiscard]] static size_t bin_of(float prediction);
  /// The best `budget` experts that are not resident, best first.
  void choose_candidates(const ExpertCache& cache, int32_t layer);

  ExpertPrefetcherConfig config_;
  std::vector<ExpertTransitions> transitions_;      ///< by layer
  std::vector<float> predictions_;                  ///< [num_experts] scratch
  std::vector<std::vector<Candidate>> candidates_;  ///< by layer, as of the last prefetch()
  std::vector<Bin> bins_;
};

}  // namespace switchyard

// What a backend implements to follow expert affinity. ExpertAffinity checks shapes first and reads
// the state itself, so backends only change it.
#pragma once

#include "switchyard/affinity_score.h"
#include "switchyard/buffer.h"
#include "switchyard/expert_affinity.h"

namespace switchyard {

class ExpertAffinity::Implementation {
 public:
  Implementation(const ExpertAffinityConfig& affinity_config, Backend affinity_backend)
      : config(affinity_config),
        backend(affinity_backend),
        rule(make_affinity_rule(config.decay, config.activation_boost, config.max_score)),
        units(config.num_experts, backend),
        activations(config.num_experts, backend),
        recorded(config.num_experts, backend) {}
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  virtual ~Implementation() = default;

  virtual void record(MatrixView<const int32_t> expert_ids, StreamView stream) = 0;
  /// Null data: nothing beside what was recorded.
  virtual void update(const int64_t* tokens_per_expert, StreamView stream) = 0;
  virtual void reset(StreamView stream) = 0;

  const ExpertAffinityConfig config;
  const Backend backend;
  const AffinityRule rule;
  Buffer<uint32_t> units;       ///< scores
  Buffer<int64_t> activations;  ///< of all batches that have ended
  Buffer<int64_t> recorded;     ///< assignments since then
};

}  // namespace switchyard

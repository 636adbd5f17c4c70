#include "cpu/reference/expert_affinity.h"

#include <algorithm>
#include <limits>

#include "cpu/expert_ids.h"

namespace switchyard::cpu::reference {
namespace {

/// Wide enough for every product and sum here, so that nothing needs care before the last minimum.
__extension__ using Wide = unsigned __int128;

class ReferenceAffinity final : public ExpertAffinity::Implementation {
 public:
  explicit ReferenceAffinity(const ExpertAffinityConfig& affinity_config)
      : Implementation(affinity_config, Backend::kReference) {}

  void record(MatrixView<const int32_t> expert_ids, StreamView) override {
    check_expert_ids(expert_ids, config.num_experts);
    for (int64_t token = 0; token < expert_ids.rows; ++token) {
      for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
        const int32_t id = expert_ids.row(token)[slot];
        if (id != -1) ++recorded[id];
      }
    }
  }

  void update(const int64_t* tokens_per_expert, StreamView) override {
    for (int32_t expert = 0; expert < config.num_experts; ++expert) {
      Wide count = static_cast<Wide>(recorded[expert]);
      if (tokens_per_expert != nullptr) count += static_cast<Wide>(tokens_per_expert[expert]);
      const Wide one = Wide{1} << 32;
      const Wide decayed = Wide{units[expert]} * rule.decay / one;
      const Wide score = decayed + count * rule.boost;
      const Wide total = static_cast<Wide>(activations[expert]) + count;
      units[expert] = static_cast<uint32_t>(std::min<Wide>(score, kMaxAffinityUnits));
      activations[expert] = static_cast<int64_t>(
          std::min<Wide>(total, static_cast<Wide>(std::numeric_limits<int64_t>::max())));
      recorded[expert] = 0;
    }
  }

  void reset(StreamView) override {
    std::fill(units.begin(), units.end(), 0);
    std::fill(activations.begin(), activations.end(), 0);
    std::fill(recorded.begin(), recorded.end(), 0);
  }
};

}  // namespace

std::unique_ptr<ExpertAffinity::Implementation> make_affinity(const ExpertAffinityConfig& config) {
  return std::make_unique<ReferenceAffinity>(config);
}

}  // namespace switchyard::cpu::reference

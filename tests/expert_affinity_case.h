// Batches of expert ids in memory that every backend can use, and what affinity makes of them.
#pragma once

#include <algorithm>
#include <vector>

#include "switchyard/expert_affinity.h"
#include "tests/backend_memory.h"
#include "tests/backend_variants.h"
#include "tests/random_stream.h"

namespace switchyard::test {

/// The reference and every backend that the program tests.
inline std::vector<Backend> affinity_backends() {
  std::vector<Backend> backends{Backend::kReference};
  for (const BackendVariant& variant : backend_variants()) {
    if (std::find(backends.begin(), backends.end(), variant.backend) == backends.end()) {
      backends.push_back(variant.backend);
    }
  }
  return backends;
}

struct AffinityBatch {
  /// Dense rows, given in order.
  AffinityBatch(const std::vector<int32_t>& dense, int64_t num_slots)
      : slots(num_slots), stride(num_slots), ids(dense.begin(), dense.end()) {
    num_tokens = num_slots == 0 ? 0 : static_cast<int64_t>(dense.size()) / num_slots;
  }
  /// Random ids with padding among them; what lies between the rows would be refused.
  AffinityBatch(int32_t num_experts, int64_t tokens, int64_t num_slots, int64_t gap,
                RandomStream& random)
      : num_tokens(tokens),
        slots(num_slots),
        stride(num_slots + gap),
        ids(static_cast<size_t>(tokens * stride), num_experts) {
    for (int64_t token = 0; token < tokens; ++token) {
      for (int64_t slot = 0; slot < slots; ++slot) {
        const auto id = static_cast<int32_t>(random.below(num_experts));
        ids[static_cast<size_t>(token * stride + slot)] = random.chance(10) ? -1 : id;
      }
    }
  }

  [[nodiscard]] MatrixView<const int32_t> view() const { return rows(0, num_tokens); }
  [[nodiscard]] MatrixView<const int32_t> rows(int64_t begin, int64_t end) const {
    return {ids.data() + begin * stride, end - begin, slots, stride};
  }
  [[nodiscard]] BackendVector<int64_t> counts(int32_t num_experts) const {
    BackendVector<int64_t> counts(static_cast<size_t>(num_experts));
    for (int64_t token = 0; token < num_tokens; ++token) {
      for (int64_t slot = 0; slot < slots; ++slot) {
        const int32_t id = view().row(token)[slot];
        if (id >= 0) ++counts[static_cast<size_t>(id)];
      }
    }
    return counts;
  }

  int64_t num_tokens = 0;
  int64_t slots;
  int64_t stride;
  BackendVector<int32_t> ids;
};

inline VectorView<const int64_t> view_of(const BackendVector<int64_t>& counts) {
  return {counts.data(), static_cast<int64_t>(counts.size())};
}

inline std::vector<uint32_t> units_of(const ExpertAffinity& affinity) {
  finish_backends();
  const VectorView<const uint32_t> units = affinity.units();
  return {units.data, units.data + units.size};
}

inline std::vector<float> scores_of(const ExpertAffinity& affinity) {
  finish_backends();
  std::vector<float> scores(static_cast<size_t>(affinity.config().num_experts));
  affinity.scores({scores.data(), affinity.config().num_experts});
  return scores;
}

inline std::vector<int64_t> activations_of(const ExpertAffinity& affinity) {
  finish_backends();
  std::vector<int64_t> activations(static_cast<size_t>(affinity.config().num_experts));
  affinity.activations({activations.data(), affinity.config().num_experts});
  return activations;
}

inline std::vector<int32_t> top_of(const ExpertAffinity& affinity, int64_t k) {
  finish_backends();
  std::vector<int32_t> experts(static_cast<size_t>(k), -7);
  const int64_t count = affinity.top_k({experts.data(), k});
  for (int64_t i = count; i < k; ++i) {
    if (experts[static_cast<size_t>(i)] != -7) return {};  // written behind what there is
  }
  experts.resize(static_cast<size_t>(count));
  return experts;
}

inline int32_t least_of(const ExpertAffinity& affinity, const std::vector<int32_t>& candidates) {
  finish_backends();
  return affinity.least({candidates.data(), static_cast<int64_t>(candidates.size())});
}

inline double percentile_of(const ExpertAffinity& affinity, int32_t expert) {
  finish_backends();
  return affinity.percentile(expert);
}

}  // namespace switchyard::test

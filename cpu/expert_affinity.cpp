#include "cpu/expert_affinity.h"

#include <algorithm>
#include <array>

#include "cpu/affinity_state.h"
#include "cpu/expert_ids.h"

namespace switchyard::cpu {
namespace {

class CpuAffinity final : public ExpertAffinity::Implementation {
 public:
  explicit CpuAffinity(const ExpertAffinityConfig& affinity_config)
      : Implementation(affinity_config, Backend::kCpu) {}

  void record(MatrixView<const int32_t> expert_ids, StreamView) override {
    // A count of its own costs a pass over the experts, and saves atomics and contention.
    if (2 * expert_ids.rows * expert_ids.cols < config.num_experts) {
      record_few(expert_ids);
    } else {
      record_many(expert_ids);
    }
  }

  /// Every score decays at the end of every batch. Stamps by which whoever touches a score makes up
  /// for the batches since win only where batches of few tokens are read by nobody;
  /// bench/affinity_bench.cpp compares the two.
  void update(const int64_t* tokens_per_expert, StreamView) override {
    const AffinityRule local_rule = rule;  // no store can change it
    for (int32_t expert = 0; expert < config.num_experts; ++expert) {
      const uint32_t before = load_relaxed(units[expert]);
      uint64_t count = 0;
      if (tokens_per_expert != nullptr) count = static_cast<uint64_t>(tokens_per_expert[expert]);
      if (load_relaxed(recorded[expert]) != 0) {
        std::atomic_ref<int64_t> counter(recorded[expert]);
        count += static_cast<uint64_t>(counter.exchange(0, std::memory_order_relaxed));
      }
      if (count == 0) {
        store_relaxed(units[expert], decayed_units(local_rule, before));
        continue;
      }
      store_relaxed(units[expert], updated_units(local_rule, before, count));
      int64_t& sum = activations[expert];
      store_relaxed(sum, added_activations(load_relaxed(sum), count));
    }
  }

  void reset(StreamView) override {
    for (int32_t expert = 0; expert < config.num_experts; ++expert) {
      store_relaxed(units[expert], uint32_t{0});
      store_relaxed(activations[expert], int64_t{0});
      store_relaxed(recorded[expert], int64_t{0});
    }
  }

 private:
  static void add(int64_t& counter, int64_t count) {
    std::atomic_ref<int64_t>(counter).fetch_add(count, std::memory_order_relaxed);
  }

  /// Calls visit(id + 1) for every id: 0 is padding, above num_experts is no expert's.
  template <typename Visit>
  static void for_each_id(MatrixView<const int32_t> expert_ids, const Visit& visit) {
    for (int64_t token = 0; token < expert_ids.rows; ++token) {
      const int32_t* const ids = expert_ids.row(token);
      for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
        visit(static_cast<uint32_t>(ids[slot]) + 1);
      }
    }
  }

  void record_few(MatrixView<const int32_t> expert_ids) {
    const auto num_experts = static_cast<uint32_t>(config.num_experts);
    bool any_unknown = false;
    for_each_id(expert_ids, [&](uint32_t place) { any_unknown |= place > num_experts; });
    if (any_unknown) check_expert_ids(expert_ids, config.num_experts);  // throws
    int64_t* const counters = recorded.data();
    for_each_id(expert_ids, [&](uint32_t place) {
      if (place != 0) add(counters[place - 1], 1);
    });
  }

  void record_many(MatrixView<const int32_t> expert_ids) {
    const auto num_experts = static_cast<uint32_t>(config.num_experts);
    std::array<int64_t, kMaxAffinityExperts + 2> counts;  // by id + 1; unknown ids are the last
    std::fill_n(counts.begin(), num_experts + 2, 0);
    for_each_id(expert_ids, [&](uint32_t place) { ++counts[std::min(place, num_experts + 1)]; });
    if (counts[num_experts + 1] != 0) check_expert_ids(expert_ids, config.num_experts);  // throws
    int64_t* const counters = recorded.data();
    for (uint32_t expert = 0; expert < num_experts; ++expert) {
      if (counts[expert + 1] != 0) add(counters[expert], counts[expert + 1]);
    }
  }
};

}  // namespace

std::unique_ptr<ExpertAffinity::Implementation> make_cpu_affinity(
    const ExpertAffinityConfig& config) {
  return std::make_unique<CpuAffinity>(config);
}

}  // namespace switchyard::cpu

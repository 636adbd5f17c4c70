// What ExpertCache keeps, and the steps that its calls are made of. Arguments have been checked.
#pragma once

#include <bit>
#include <limits>
#include <vector>

#include "cpu/residency_state.h"
#include "switchyard/expert_cache.h"
#include "switchyard/expert_transitions.h"

namespace switchyard {

/// How an expert has been used. Half a cache line, so that an access touches one.
struct ExpertUse {
  double affinity = 0.0;  ///< in units of the layer's first increment
  int64_t last = 0;       ///< the layer's clock
  int64_t count = 0;
  int64_t next = std::numeric_limits<int64_t>::max();  ///< index of the next planned access
};

class ExpertCache::Implementation {
 public:
  /// The key of what may not leave: a pinned expert, or one in use by the call.
  static constexpr int64_t kStays = std::numeric_limits<int64_t>::max();
  static constexpr int kIdBits = 12;
  static constexpr int64_t kIdMask = (int64_t{1} << kIdBits) - 1;
  static constexpr int32_t kNoSlot = -1;
  static constexpr int64_t kFarthest = (int64_t{1} << 50) - 1;

  struct Layer {
    /// What a use adds to an affinity. It grows by 1 / decay a call instead of every score falling.
    double increment = 1.0;
    double total = 0.0;  ///< of all increments
    int64_t clock = 0;
    int64_t num_prefetched = 0;  ///< and not used since
    int64_t num_passed = 0;      ///< planned accesses that have been made
    int32_t num_slots = 0;       ///< that are taken, the first ones
    int32_t num_previous = 0;
    // Each [num_experts].
    int64_t* keys = nullptr;        ///< of slots; the least leaves
    int32_t* expert_of = nullptr;   ///< of slots
    int32_t* slot_of = nullptr;     ///< of experts, kNoSlot when not resident
    int32_t* previous = nullptr;    ///< the experts of the token before
    uint8_t* prefetched = nullptr;  ///< of experts, 1: and not used since
    ExpertUse* uses = nullptr;      ///< of experts
  };

  Implementation(const ExpertCacheConfig& cache_config, Backend backend);

  int64_t serve(int32_t index, const MatrixView<const int32_t>& expert_ids,
                VectorView<PagingRequest> requests);
  /// serve() of one token whose experts are all resident; otherwise does nothing.
  /// @return whether it was one.
  bool serve_resident_token(int32_t index, VectorView<const int32_t> expert_ids);
  /// serve() of a token whose ids are known to be in range.
  int64_t serve_known_token(int32_t index, VectorView<const int32_t> expert_ids, bool all_resident,
                            VectorView<PagingRequest> requests);
  /// The same for experts that are known to be resident.
  /// @return false where every call has more to do than to count and to rank.
  bool serve_known_residents(int32_t index, VectorView<const int32_t> expert_ids);
  /// Resident experts of a layer.
  [[nodiscard]] VectorView<const uint8_t> resident_flags(int32_t index) const {
    return {memory_.mask.data() + index * memory_.mask_stride, config.memory.num_experts};
  }
  /// At most a page-out and a page-in.
  int64_t admit(int32_t index, int32_t expert, PagingPriority priority,
                VectorView<PagingRequest> requests);
  int64_t prefetch(int32_t index, int32_t budget, VectorView<PagingRequest> requests);
  int64_t set_fast_slots(int32_t index, int32_t slots, VectorView<PagingRequest> requests);
  void plan_accesses(int32_t index, VectorView<const int32_t> expert_ids);
  void leave(int32_t index, int32_t expert);
  /// What the policy gives up for one more expert: -1 where there is room, or nothing may leave.
  [[nodiscard]] int32_t next_victim(int32_t index) const;
  /// After a change of whether the expert may leave.
  void refresh_key(int32_t index, int32_t expert) {
    Layer& layer = layers[static_cast<size_t>(index)];
    const int32_t slot = layer.slot_of[expert];
    if (slot == kNoSlot) return;
    layer.keys[slot] = memory_.is_pinned(index, expert) ? kStays : key_of(layer, expert);
  }
  [[nodiscard]] double use_probability(const Layer& layer, int32_t expert) const {
    if (layer.total <= 0.0) return 0.0;
    return std::min(1.0, layer.uses[expert].affinity / layer.total);
  }
  [[nodiscard]] bool prefetch_pays(double gained, double lost) const {
    return gained > lost && gained > config.prefetch_threshold &&
           gained > break_even_precision(config.costs, lost);
  }
  /// The key of a resident that may leave. Its last bits settle ties.
  [[nodiscard]] int64_t key_of(const Layer& layer, int32_t expert) const {
    return key_of(config.policy, layer, expert);
  }
  [[nodiscard]] static int64_t key_of(EvictionPolicy policy, const Layer& layer, int32_t expert) {
    const ExpertUse& use = layer.uses[expert];
    switch (policy) {
      case EvictionPolicy::kLru:
      case EvictionPolicy::kAdaptive:
        break;
      case EvictionPolicy::kLfu:
        return use.count << kIdBits | layer.slot_of[expert];
      case EvictionPolicy::kAffinity:
        // Doubles of 0 or more are ordered like their bits; the last 12 make room for the id.
        return (static_cast<int64_t>(std::bit_cast<uint64_t>(use.affinity)) & ~kIdMask) | expert;
      case EvictionPolicy::kBelady:
        return (kFarthest - std::min(use.next, kFarthest)) << kIdBits | expert;
    }
    return use.last << kIdBits | expert;
  }

  const ExpertCacheConfig config;
  Residency residency;
  MemoryMetrics metrics;
  std::vector<Layer> layers;

 private:
  /// What a call's experts ask of the layer.
  struct Demand {
    int32_t num_missing = 0;   ///< distinct experts, in missing_
    int32_t num_admitted = 0;  ///< the first of them
    int32_t num_leaving = 0;
  };

  int64_t serve_untimed(int32_t index, const MatrixView<const int32_t>& expert_ids,
                        VectorView<PagingRequest> requests);
  /// The same for ids that are known to be in range.
  int64_t serve_checked(int32_t index, const MatrixView<const int32_t>& expert_ids,
                        bool all_resident, VectorView<PagingRequest> requests);
  /// Holds the residents that the call uses. Refuses too few requests, having held none.
  Demand plan(int32_t index, const MatrixView<const int32_t>& expert_ids, int64_t num_requests);
  void check_planned(int32_t index, const MatrixView<const int32_t>& expert_ids) const;
  void advance(Layer& layer) const;
  void rescale(Layer& layer) const;
  template <EvictionPolicy kPolicy>
  void count_residents(Layer& layer, VectorView<const int32_t> expert_ids);
  void record_use(int32_t index, int32_t expert);
  void count_prefetch_hit(Layer& layer, int32_t expert);
  void learn_transitions(int32_t index, const MatrixView<const int32_t>& expert_ids);
  void enter(int32_t index, int32_t expert);
  [[nodiscard]] int32_t victim(int32_t index) const;
  [[nodiscard]] static int32_t adaptive_victim(const Layer& layer);
  [[nodiscard]] int32_t transition_victim(int32_t index) const;

  Residency::State& memory_;
  const bool is_watchful_;  ///< every call has more to do than to count and to rank
  const double growth_;     ///< of an increment, a call
  std::vector<ExpertTransitions> transitions_;  ///< from token to token, by layer, or none
  // The layers' arrays, one after another.
  std::vector<int64_t> keys_;
  std::vector<int32_t> integers_;
  std::vector<uint8_t> prefetched_;
  std::vector<ExpertUse> uses_;
  // Scratch of a call.
  std::vector<int32_t> missing_;
  std::vector<uint64_t> marks_;  ///< a bit an expert, zero between calls
  std::vector<uint64_t> ranking_;
  // kBelady: by layer, the planned accesses and when the same expert is used next.
  std::vector<std::vector<int32_t>> planned_;
  std::vector<std::vector<int64_t>> next_uses_;
};

}  // namespace switchyard

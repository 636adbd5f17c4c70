// Serving tokens: the hot path of the cache of experts.
#include <cfloat>
#include <chrono>

#include "cpu/expert_cache_state.h"
#include "cpu/expert_ids.h"
#include "cpu/view_checks.h"

namespace switchyard {
namespace {

/// Rows of one call, so that its accesses stay far inside int64.
constexpr int64_t kMaxRows = int64_t{1} << 40;

/// Calls visit(id) for every id but padding.
template <typename Visit>
void for_each_id(const MatrixView<const int32_t>& expert_ids, const Visit& visit) {
  for (int64_t token = 0; token < expert_ids.rows; ++token) {
    const int32_t* const ids = expert_ids.row(token);
    for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
      if (ids[slot] >= 0) visit(ids[slot]);
    }
  }
}

}  // namespace

int64_t ExpertCache::serve(int32_t layer, MatrixView<const int32_t> expert_ids,
                           VectorView<PagingRequest> requests) {
  Implementation& cache = *implementation_;
  cpu::check_range("layer", layer, 0, cache.config.memory.num_layers - 1);
  cpu::check_range("expert_ids rows", expert_ids.rows, 0, kMaxRows);
  cpu::check_range("expert_ids columns", expert_ids.cols, 0, kMaxResidencyExperts);
  cpu::check_matrix("expert_ids", expert_ids, expert_ids.rows, expert_ids.cols);
  cpu::check_vector("requests", requests, std::max<int64_t>(requests.size, 0));
  return cache.serve(layer, expert_ids, requests);
}

int64_t ExpertCache::serve_token(int32_t layer, VectorView<const int32_t> expert_ids,
                                 VectorView<PagingRequest> requests) {
  Implementation& cache = *implementation_;
  const auto num_layers = static_cast<uint32_t>(cache.config.memory.num_layers);
  // The usual call needs few checks.
  if (static_cast<uint32_t>(layer) < num_layers &&
      (requests.size > 0) == (requests.data != nullptr) &&
      cache.serve_resident_token(layer, expert_ids)) {
    return 0;
  }
  return serve(layer, {expert_ids.data, 1, expert_ids.size}, requests);
}

/// A power of two, so that nothing is rounded; what falls out of range counts as never used.
void ExpertCache::Implementation::rescale(Layer& layer) const {
  constexpr double kScale = 0x1p-512;
  layer.increment *= kScale;
  layer.total *= kScale;
  for (int32_t expert = 0; expert < config.memory.num_experts; ++expert) {
    double& affinity = layer.uses[expert].affinity;
    affinity = affinity * kScale < DBL_MIN ? 0.0 : affinity * kScale;
  }
  for (int32_t slot = 0; slot < layer.num_slots; ++slot) {
    if (layer.keys[slot] != kStays) layer.keys[slot] = key_of(layer, layer.expert_of[slot]);
  }
}

inline void ExpertCache::Implementation::advance(Layer& layer) const {
  constexpr double kMost = 0x1p512;
  layer.increment *= growth_;
  if (layer.increment > kMost) rescale(layer);
  layer.total += layer.increment;
}

inline void ExpertCache::Implementation::count_prefetch_hit(Layer& layer, int32_t expert) {
  if (layer.prefetched[expert] == 0) return;
  layer.prefetched[expert] = 0;
  --layer.num_prefetched;
  ++metrics.prefetch_hits;
}

template <EvictionPolicy kPolicy>
inline void ExpertCache::Implementation::count_residents(Layer& layer,
                                                         VectorView<const int32_t> expert_ids) {
  constexpr bool kByAge = kPolicy == EvictionPolicy::kLru || kPolicy == EvictionPolicy::kAdaptive;
  constexpr bool kByCount = kPolicy == EvictionPolicy::kLfu || kPolicy == EvictionPolicy::kAdaptive;
  advance(layer);
  const double increment = layer.increment;
  const bool has_prefetched = layer.num_prefetched > 0;
  int64_t clock = layer.clock;
  for (int64_t i = 0; i < expert_ids.size; ++i) {
    const int32_t id = expert_ids[i];
    ExpertUse& use = layer.uses[id];
    use.affinity += increment;
    if constexpr (kByAge) use.last = ++clock;
    if constexpr (kByCount) ++use.count;
    int64_t& key = layer.keys[layer.slot_of[id]];
    if (key != kStays) key = key_of(kPolicy, layer, id);  // else it is pinned
    if (has_prefetched) count_prefetch_hit(layer, id);
  }
  layer.clock = clock;
  ++metrics.decisions;
  metrics.hits += expert_ids.size;
}

bool ExpertCache::Implementation::serve_known_residents(int32_t index,
                                                        VectorView<const int32_t> ids) {
  if (is_watchful_) return false;
  Layer& layer = layers[static_cast<size_t>(index)];
  switch (config.policy) {
    case EvictionPolicy::kLru:
      count_residents<EvictionPolicy::kLru>(layer, ids);
      return true;
    case EvictionPolicy::kLfu:
      count_residents<EvictionPolicy::kLfu>(layer, ids);
      return true;
    case EvictionPolicy::kAdaptive:
      count_residents<EvictionPolicy::kAdaptive>(layer, ids);
      return true;
    case EvictionPolicy::kAffinity:
      count_residents<EvictionPolicy::kAffinity>(layer, ids);
      return true;
    case EvictionPolicy::kBelady:
      break;
  }
  return false;
}

int64_t ExpertCache::Implementation::serve_known_token(int32_t index,
                                                       VectorView<const int32_t> expert_ids,
                                                       bool all_resident,
                                                       VectorView<PagingRequest> requests) {
  if (all_resident && serve_known_residents(index, expert_ids)) return 0;
  const MatrixView<const int32_t> token(expert_ids.data, 1, expert_ids.size);
  if (config.measure_latency) return serve(index, token, requests);
  return serve_checked(index, token, all_resident, requests);
}

bool ExpertCache::Implementation::serve_resident_token(int32_t index,
                                                       VectorView<const int32_t> ids) {
  if (ids.size < 1 || ids.size > kMaxResidencyExperts || ids.data == nullptr) return false;
  const Layer& layer = layers[static_cast<size_t>(index)];
  const auto num_experts = static_cast<uint32_t>(config.memory.num_experts);
  for (int64_t i = 0; i < ids.size; ++i) {
    const auto id = static_cast<uint32_t>(ids[i]);
    if (id >= num_experts || layer.slot_of[id] == kNoSlot) return false;
  }
  return serve_known_residents(index, ids);
}

int64_t ExpertCache::Implementation::serve(int32_t index,
                                           const MatrixView<const int32_t>& expert_ids,
                                           VectorView<PagingRequest> requests) {
  if (!config.measure_latency) return serve_untimed(index, expert_ids, requests);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const int64_t written = serve_untimed(index, expert_ids, requests);
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start);
  metrics.record_latency(elapsed.count());
  return written;
}

void ExpertCache::Implementation::check_planned(int32_t index,
                                                const MatrixView<const int32_t>& expert_ids) const {
  const std::vector<int32_t>& planned = planned_[static_cast<size_t>(index)];
  auto at = static_cast<size_t>(layers[static_cast<size_t>(index)].num_passed);
  for_each_id(expert_ids, [&](int32_t id) {
    if (at >= planned.size()) {
      cpu::refuse("access ", at, " of layer ", index, " is to expert ", id, ", the plan has ",
                  planned.size(), " accesses");
    }
    if (planned[at] != id) {
      cpu::refuse("access ", at, " of layer ", index, " is to expert ", id, ", must be to ",
                  planned[at], " as planned");
    }
    ++at;
  });
}

inline void ExpertCache::Implementation::record_use(int32_t index, int32_t expert) {
  Layer& layer = layers[static_cast<size_t>(index)];
  ExpertUse& use = layer.uses[expert];
  use.affinity += layer.increment;
  use.last = ++layer.clock;
  ++use.count;
  if (config.policy == EvictionPolicy::kBelady) {
    use.next = next_uses_[static_cast<size_t>(index)][static_cast<size_t>(layer.num_passed++)];
  }
}

void ExpertCache::Implementation::learn_transitions(int32_t index,
                                                    const MatrixView<const int32_t>& expert_ids) {
  Layer& layer = layers[static_cast<size_t>(index)];
  if (expert_ids.rows != 1) {  // tokens of a batch do not follow one another
    layer.num_previous = 0;
    return;
  }
  transitions_[static_cast<size_t>(index)].learn_checked({layer.previous, layer.num_previous},
                                                         {expert_ids.data, expert_ids.cols});
  layer.num_previous = 0;
  for_each_id(expert_ids, [&](int32_t id) {
    if (layer.num_previous < config.memory.num_experts) layer.previous[layer.num_previous++] = id;
  });
}

ExpertCache::Implementation::Demand ExpertCache::Implementation::plan(
    int32_t index, const MatrixView<const int32_t>& expert_ids, int64_t num_requests) {
  Layer& layer = layers[static_cast<size_t>(index)];
  Demand demand;
  int64_t num_held = 0;
  for_each_id(expert_ids, [&](int32_t id) {
    const int32_t slot = layer.slot_of[id];
    if (slot != kNoSlot) {
      num_held += static_cast<int64_t>(layer.keys[slot] != kStays);
      layer.keys[slot] = kStays;
      return;
    }
    uint64_t& marks = marks_[static_cast<size_t>(id / 64)];
    const uint64_t mark = uint64_t{1} << (id % 64);
    if ((marks & mark) == 0) missing_[static_cast<size_t>(demand.num_missing++)] = id;
    marks |= mark;
  });
  for (int32_t i = 0; i < demand.num_missing; ++i) {
    marks_[static_cast<size_t>(missing_[static_cast<size_t>(i)] / 64)] = 0;
  }
  const auto layer_index = static_cast<size_t>(index);
  const int64_t room = memory_.room(index);
  const int64_t may_leave =
      memory_.num_resident[layer_index] - memory_.num_pinned[layer_index] - num_held;
  demand.num_admitted =
      static_cast<int32_t>(std::min<int64_t>(demand.num_missing, room + may_leave));
  demand.num_leaving = static_cast<int32_t>(std::max<int64_t>(0, demand.num_admitted - room));
  const int64_t needed = demand.num_admitted + demand.num_leaving;
  if (needed > num_requests) {
    for_each_id(expert_ids, [&](int32_t id) { refresh_key(index, id); });
    cpu::refuse("requests has ", num_requests, " elements, must have at least ", needed);
  }
  return demand;
}

int64_t ExpertCache::Implementation::serve_untimed(int32_t index,
                                                   const MatrixView<const int32_t>& expert_ids,
                                                   VectorView<PagingRequest> requests) {
  const Layer& layer = layers[static_cast<size_t>(index)];
  const auto num_experts = static_cast<uint32_t>(config.memory.num_experts);
  bool all_resident = true;
  for (int64_t token = 0; token < expert_ids.rows; ++token) {
    const int32_t* const ids = expert_ids.row(token);
    for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
      const auto id = static_cast<uint32_t>(ids[slot]);
      if (id < num_experts) {
        all_resident &= layer.slot_of[id] != kNoSlot;
      } else if (ids[slot] != -1) {
        cpu::check_expert_ids(expert_ids, config.memory.num_experts);  // throws
      }
    }
  }
  return serve_checked(index, expert_ids, all_resident, requests);
}

int64_t ExpertCache::Implementation::serve_checked(int32_t index,
                                                   const MatrixView<const int32_t>& expert_ids,
                                                   bool all_resident,
                                                   VectorView<PagingRequest> requests) {
  Layer& layer = layers[static_cast<size_t>(index)];
  if (config.policy == EvictionPolicy::kBelady) check_planned(index, expert_ids);
  Demand demand;
  if (!all_resident) demand = plan(index, expert_ids, requests.size);

  // Nothing is refused from here on.
  ++metrics.decisions;
  advance(layer);
  int64_t num_accesses = 0;
  for_each_id(expert_ids, [&](int32_t id) {
    ++num_accesses;
    record_use(index, id);
    count_prefetch_hit(layer, id);
  });
  if (!transitions_.empty()) learn_transitions(index, expert_ids);
  if (all_resident) {
    for_each_id(expert_ids, [&](int32_t id) {
      int64_t& key = layer.keys[layer.slot_of[id]];
      if (key != kStays) key = key_of(layer, id);  // else it is pinned
    });
    metrics.hits += num_accesses;
    return 0;
  }
  int64_t written = 0;
  for (int32_t i = 0; i < demand.num_admitted; ++i) {
    if (i >= demand.num_admitted - demand.num_leaving) {
      const int32_t leaving = victim(index);
      leave(index, leaving);
      requests[written++] = {index, leaving, PagingDirection::kOut, PagingPriority::kUrgent};
    }
    const int32_t expert = missing_[static_cast<size_t>(i)];
    enter(index, expert);
    requests[written++] = {index, expert, PagingDirection::kIn, PagingPriority::kUrgent};
  }
  int64_t num_misses = demand.num_admitted;
  for_each_id(expert_ids, [&](int32_t id) {
    num_misses += static_cast<int64_t>(layer.slot_of[id] == kNoSlot);
    refresh_key(index, id);
  });
  metrics.misses += num_misses;
  metrics.hits += num_accesses - num_misses;
  return written;
}

}  // namespace switchyard

// The steps of the cache of experts that do not serve tokens: making room, moving, planning.
#include "cpu/expert_cache_state.h"

#include <functional>

#include "cpu/refuse.h"

namespace switchyard {

ExpertCache::Implementation::Implementation(const ExpertCacheConfig& cache_config, Backend backend)
    : config(cache_config),
      residency(config.memory, backend),
      layers(static_cast<size_t>(config.memory.num_layers)),
      memory_(residency.state()),
      is_watchful_(config.measure_latency ||
                   (config.learn_transitions && config.policy == EvictionPolicy::kAffinity)),
      growth_(1.0 / config.decay),
      planned_(layers.size()),
      next_uses_(layers.size()) {
  constexpr size_t kIntegerArrays = 3;
  const auto num_experts = static_cast<size_t>(config.memory.num_experts);
  const size_t total = layers.size() * num_experts;
  keys_.assign(total, kStays);
  integers_.assign(kIntegerArrays * total, kNoSlot);
  prefetched_.resize(total);
  uses_.resize(total);
  missing_.resize(num_experts);
  marks_.resize((num_experts + 63) / 64);
  ranking_.resize(num_experts);
  if (config.learn_transitions && config.policy == EvictionPolicy::kAffinity) {
    transitions_.assign(layers.size(), ExpertTransitions(config.memory.num_experts));
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    Layer& layer = layers[i];
    int32_t* const integers = integers_.data() + kIntegerArrays * i * num_experts;
    layer.keys = keys_.data() + i * num_experts;
    layer.expert_of = integers;
    layer.slot_of = integers + num_experts;
    layer.previous = integers + 2 * num_experts;
    layer.prefetched = prefetched_.data() + i * num_experts;
    layer.uses = uses_.data() + i * num_experts;
  }
}

void ExpertCache::Implementation::leave(int32_t index, int32_t expert) {
  Layer& layer = layers[static_cast<size_t>(index)];
  const int32_t slot = layer.slot_of[expert];
  const int32_t last = --layer.num_slots;
  const int32_t moved = layer.expert_of[last];
  layer.expert_of[slot] = moved;
  layer.slot_of[moved] = slot;
  layer.keys[slot] = layer.keys[last] == kStays ? kStays : key_of(layer, moved);
  layer.slot_of[expert] = kNoSlot;
  if (layer.prefetched[expert] != 0) {
    layer.prefetched[expert] = 0;
    --layer.num_prefetched;
    ++metrics.prefetch_misses;
  }
  memory_.leave(index, expert);
  ++metrics.page_outs;
}

void ExpertCache::Implementation::enter(int32_t index, int32_t expert) {
  Layer& layer = layers[static_cast<size_t>(index)];
  const int32_t slot = layer.num_slots++;
  layer.expert_of[slot] = expert;
  layer.slot_of[expert] = slot;
  layer.keys[slot] = kStays;  // until its call is over
  memory_.enter(index, expert);
  ++metrics.page_ins;
}

int32_t ExpertCache::Implementation::victim(int32_t index) const {
  const Layer& layer = layers[static_cast<size_t>(index)];
  if (!transitions_.empty()) return transition_victim(index);
  if (config.policy == EvictionPolicy::kAdaptive) return adaptive_victim(layer);
  // Four chains, so that comparisons do not wait for one another.
  int64_t least[4] = {kStays, kStays, kStays, kStays};
  const int64_t* const keys = layer.keys;
  int32_t slot = 0;
  for (; slot + 4 <= layer.num_slots; slot += 4) {
    for (int32_t i = 0; i < 4; ++i) least[i] = std::min(least[i], keys[slot + i]);
  }
  for (; slot < layer.num_slots; ++slot) least[0] = std::min(least[0], keys[slot]);
  const int64_t key = std::min(std::min(least[0], least[1]), std::min(least[2], least[3]));
  if (key == kStays) return -1;
  const auto last_bits = static_cast<int32_t>(key & kIdMask);
  return config.policy == EvictionPolicy::kLfu ? layer.expert_of[last_bits] : last_bits;
}

int32_t ExpertCache::Implementation::adaptive_victim(const Layer& layer) {
  constexpr int64_t kSkew = 3;
  int64_t oldest = kStays;
  int64_t rarest = kStays;
  int64_t most = 0;
  for (int32_t slot = 0; slot < layer.num_slots; ++slot) {
    if (layer.keys[slot] == kStays) continue;
    const int32_t expert = layer.expert_of[slot];
    const int64_t count = layer.uses[expert].count;
    oldest = std::min(oldest, layer.keys[slot]);
    rarest = std::min(rarest, count << kIdBits | slot);
    most = std::max(most, count);
  }
  if (oldest == kStays) return -1;
  const int64_t fewest = rarest >> kIdBits;
  const bool is_skewed = fewest > 0 && most >= kSkew * fewest;
  if (is_skewed) return layer.expert_of[rarest & kIdMask];
  return static_cast<int32_t>(oldest & kIdMask);
}

int32_t ExpertCache::Implementation::transition_victim(int32_t index) const {
  const Layer& layer = layers[static_cast<size_t>(index)];
  const ExpertTransitions& transitions = transitions_[static_cast<size_t>(index)];
  const float share = layer.num_previous > 0 ? 1.0f / static_cast<float>(layer.num_previous) : 0.0f;
  float lowest = std::numeric_limits<float>::infinity();
  int32_t found = -1;
  for (int32_t slot = 0; slot < layer.num_slots; ++slot) {
    if (layer.keys[slot] == kStays) continue;
    const int32_t expert = layer.expert_of[slot];
    const auto prior = static_cast<float>(use_probability(layer, expert));
    float followed = 0.0f;
    for (int32_t i = 0; i < layer.num_previous; ++i) {
      followed += transitions.probability(layer.previous[i], expert, prior);
    }
    const float value = prior + followed * share;
    if (value < lowest || (value == lowest && expert < found)) {
      lowest = value;
      found = expert;
    }
  }
  return found;
}

int32_t ExpertCache::Implementation::next_victim(int32_t index) const {
  return memory_.room(index) > 0 ? -1 : victim(index);
}

int64_t ExpertCache::Implementation::admit(int32_t index, int32_t expert, PagingPriority priority,
                                           VectorView<PagingRequest> requests) {
  Layer& layer = layers[static_cast<size_t>(index)];
  if (layer.slot_of[expert] != kNoSlot) return 0;
  const bool has_room = memory_.room(index) > 0;
  const int32_t leaving = has_room ? -1 : victim(index);
  if (!has_room && leaving < 0) return 0;
  const int64_t needed = has_room ? 1 : 2;
  if (requests.size < needed) {
    cpu::refuse("requests has ", requests.size, " elements, must have at least ", needed);
  }
  int64_t written = 0;
  if (!has_room) {
    leave(index, leaving);
    requests[written++] = {index, leaving, PagingDirection::kOut, priority};
  }
  enter(index, expert);
  requests[written++] = {index, expert, PagingDirection::kIn, priority};
  // What comes in is as recent as the last use, or the next one to come would push it out again.
  layer.uses[expert].last = layer.clock;
  refresh_key(index, expert);
  if (priority == PagingPriority::kPrefetch) {
    layer.prefetched[expert] = 1;
    ++layer.num_prefetched;
  }
  return written;
}

int64_t ExpertCache::Implementation::prefetch(int32_t index, int32_t budget,
                                              VectorView<PagingRequest> requests) {
  const Layer& layer = layers[static_cast<size_t>(index)];
  const int32_t num_experts = config.memory.num_experts;
  int64_t num_used = 0;
  for (int32_t expert = 0; expert < num_experts; ++expert) {
    const auto bits = std::bit_cast<uint64_t>(layer.uses[expert].affinity);
    if (bits == 0) continue;
    constexpr auto kMask = static_cast<uint64_t>(kIdMask);
    ranking_[static_cast<size_t>(num_used++)] =
        (bits & ~kMask) | (kMask - static_cast<uint64_t>(expert));
  }
  const int64_t num_ranked = std::min<int64_t>(2 * int64_t{budget}, num_used);
  std::partial_sort(ranking_.begin(), ranking_.begin() + num_ranked, ranking_.begin() + num_used,
                    std::greater<>());
  int64_t written = 0;
  int32_t num_brought = 0;
  for (int64_t i = 0; i < num_ranked && num_brought < budget; ++i) {
    const uint64_t key = ranking_[static_cast<size_t>(i)];
    const auto expert = static_cast<int32_t>(kIdMask - static_cast<int64_t>(key & kIdMask));
    if (layer.slot_of[expert] != kNoSlot) continue;
    const int32_t leaving = next_victim(index);
    const double lost = leaving < 0 ? 0.0 : use_probability(layer, leaving);
    if (!prefetch_pays(use_probability(layer, expert), lost)) continue;
    const int64_t added = admit(index, expert, PagingPriority::kPrefetch,
                                {requests.data + written, requests.size - written});
    if (added == 0) break;
    written += added;
    ++num_brought;
  }
  return written;
}

int64_t ExpertCache::Implementation::set_fast_slots(int32_t index, int32_t slots,
                                                    VectorView<PagingRequest> requests) {
  int64_t written = 0;
  while (residency.num_resident(index) > slots) {
    const int32_t leaving = victim(index);
    leave(index, leaving);
    requests[written++] = {index, leaving, PagingDirection::kOut, PagingPriority::kNormal};
  }
  memory_.fast_slots[static_cast<size_t>(index)] = slots;
  return written;
}

void ExpertCache::Implementation::plan_accesses(int32_t index,
                                                VectorView<const int32_t> expert_ids) {
  std::vector<int32_t> planned;
  for (int64_t i = 0; i < expert_ids.size; ++i) {
    if (expert_ids[i] >= 0) planned.push_back(expert_ids[i]);
  }
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  std::vector<int64_t> next(planned.size());
  std::vector<int64_t> first(static_cast<size_t>(config.memory.num_experts), kNever);
  for (size_t i = planned.size(); i-- > 0;) {
    int64_t& seen = first[static_cast<size_t>(planned[i])];
    next[i] = seen;
    seen = static_cast<int64_t>(i);
  }
  Layer& layer = layers[static_cast<size_t>(index)];
  layer.num_passed = 0;
  planned_[static_cast<size_t>(index)] = std::move(planned);
  next_uses_[static_cast<size_t>(index)] = std::move(next);
  for (int32_t expert = 0; expert < config.memory.num_experts; ++expert) {
    layer.uses[expert].next = first[static_cast<size_t>(expert)];
    refresh_key(index, expert);
  }
}

}  // namespace switchyard

// Calls of the memory's parts with lists in place of views.
#pragma once

#include <initializer_list>
#include <vector>

#include "switchyard/expert_cache.h"

namespace switchyard::test {

inline ExpertCacheConfig cache_config(int32_t num_experts, int32_t fast_slots,
                                      EvictionPolicy policy = EvictionPolicy::kLru) {
  ExpertCacheConfig config;
  config.memory.num_experts = num_experts;
  config.memory.fast_slots = fast_slots;
  config.policy = policy;
  return config;
}

inline VectorView<const int32_t> view_of(const std::vector<int32_t>& ids) {
  return {ids.data(), static_cast<int64_t>(ids.size())};
}

/// What a call wrote, given room for `capacity` requests.
template <typename Call>
std::vector<PagingRequest> requests_of(const Call& call, int64_t capacity = 64) {
  std::vector<PagingRequest> requests(static_cast<size_t>(capacity));
  const int64_t written = call(VectorView<PagingRequest>{requests.data(), capacity});
  requests.resize(static_cast<size_t>(written));
  return requests;
}

/// One token's experts.
inline std::vector<PagingRequest> serve(ExpertCache& cache, const std::vector<int32_t>& ids,
                                        int32_t layer = 0) {
  return requests_of([&](VectorView<PagingRequest> requests) {
    return cache.serve_token(layer, view_of(ids), requests);
  });
}

inline std::vector<int32_t> residents_of(const Residency& residency, int32_t layer = 0) {
  std::vector<int32_t> experts(static_cast<size_t>(residency.num_resident(layer)));
  residency.list_resident(layer, {experts.data(), static_cast<int64_t>(experts.size())});
  return experts;
}

inline PagingRequest urgent_in(int32_t expert, int32_t layer = 0) {
  return {layer, expert, PagingDirection::kIn, PagingPriority::kUrgent};
}
inline PagingRequest urgent_out(int32_t expert, int32_t layer = 0) {
  return {layer, expert, PagingDirection::kOut, PagingPriority::kUrgent};
}

}  // namespace switchyard::test

namespace switchyard {

/// For messages of tests.
inline void PrintTo(const PagingRequest& request, std::ostream* out) {
  *out << (request.direction == PagingDirection::kIn ? "in " : "out ") << request.expert << " of "
       << request.layer << ", priority " << static_cast<int>(request.priority);
}

}  // namespace switchyard

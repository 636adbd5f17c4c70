// Routing that knows which experts are in fast memory, and says what to move.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "switchyard/bonus_controller.h"
#include "switchyard/expert_cache.h"
#include "switchyard/paging_request.h"
#include "switchyard/residency_preference.h"
#include "switchyard/router.h"

namespace switchyard {

struct MemoryAwareRouterConfig {
  RouterConfig routing{.num_experts = 8, .top_k = 2};
  ExpertCacheConfig cache{.memory = {.num_experts = 8}};  ///< of as many experts as `routing`
  ResidencyPreference preference{.bonus = 0.15f};         ///< without resident_experts
  bool memory_aware = true;   ///< false: choices as if the preference's bonus were 0
  bool adapts_bonus = false;  ///< the bonus follows a hit rate, as `controller` says
  BonusControllerConfig controller{};
  int32_t prefetch_budget = 0;  ///< ExpertCache::prefetch() after every decision; 0: none
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const MemoryAwareRouterConfig& config);

/// A Router on the host and an ExpertCache in one: chooses experts with a preference for those in
/// fast memory, counts hits and misses, follows affinity, admits and evicts, and tells what to
/// move. For choices made elsewhere, on a GPU for one, use Router and ExpertCache by themselves.
///
/// Memory is allocated by the constructor alone. Calls are made one at a time.
class MemoryAwareRouter {
 public:
  /// @param backend  kReference or kCpu.
  /// @throws InvalidArgument  when `config` is refused by validate(), or the backend is another.
  /// @throws std::bad_alloc
  explicit MemoryAwareRouter(const MemoryAwareRouterConfig& config,
                             Backend backend = Backend::kCpu);
  ~MemoryAwareRouter();
  MemoryAwareRouter(MemoryAwareRouter&&) noexcept;
  MemoryAwareRouter& operator=(MemoryAwareRouter&&) noexcept;

  [[nodiscard]] const MemoryAwareRouterConfig& config() const;
  [[nodiscard]] const Router& router() const;
  /// Its residency can be changed between decisions: pinned, admitted, evicted.
  [[nodiscard]] ExpertCache& cache();
  [[nodiscard]] const ExpertCache& cache() const;
  /// As it is in use now.
  [[nodiscard]] float bonus() const;

  /// At most this many requests come from a decision over `num_tokens`.
  [[nodiscard]] int64_t max_requests(int64_t num_tokens) const;

  /// Decides for one token or for a batch whose experts are needed together.
  ///
  /// @param layer     of the cache.
  /// @param inputs    as Router::route(), without residency.
  /// @param result    as Router::route(); its first top_k columns are served, since shared experts
  ///                  are always there.
  /// @param requests  urgent ones first, then prefetches; max_requests() are always enough.
  /// @return how many requests were written.
  /// @throws InvalidArgument  as Router::route() and ExpertCache::serve(). For too few requests
  ///                          `result` has been written; all else is as it was.
  int64_t route(int32_t layer, const RoutingInputs& inputs, const RoutingResult& result,
                VectorView<PagingRequest> requests, std::span<std::byte> workspace = {});

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard

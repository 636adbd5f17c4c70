// Fast memory as a cache of experts: what stays, what leaves, and what the caller has to move.
#pragma once

#include <cstdint>
#include <memory>

#include "switchyard/memory_metrics.h"
#include "switchyard/paging_request.h"
#include "switchyard/residency.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// Which expert leaves a full layer. Of equals the lower id; among equally many uses the one that
/// stands first in the layer's table, which grows at its end and whose last expert takes the place
/// of one that leaves.
enum class EvictionPolicy : uint8_t {
  kLru,       ///< the one that was used longest ago
  kLfu,       ///< the one used least often since the start
  kAdaptive,  ///< kLfu where the most used resident has 3 times the uses of the least, else kLru
  kAffinity,  ///< the one least used lately, by an exponentially decaying sum of its uses,
              ///< of which the last 12 of 53 bits do not count
  kBelady,    ///< the one whose next use lies furthest ahead, as plan_accesses() tells: a bound
};

/// "lru", "lfu", "adaptive", "affinity" or "belady".
const char* name_of(EvictionPolicy policy);
/// @throws InvalidArgument  naming `name` and what there is.
EvictionPolicy eviction_policy_of(const char* name);

struct ExpertCacheConfig {
  ResidencyConfig memory;
  EvictionPolicy policy = EvictionPolicy::kAffinity;
  /// kAffinity: of an expert's score from call to call, in [1e-6, 1]; 1 forgets nothing.
  double decay = 0.97;
  /// kAffinity: also weigh which experts used to follow those of the token at hand. Takes
  /// 2 * num_experts^2 bytes a layer, and top_k^2 steps a token.
  bool learn_transitions = false;
  PagingCosts costs{};              ///< decide which prefetches pay
  double prefetch_threshold = 0.1;  ///< how probable a prefetched expert's use must be anyway
  bool measure_latency = false;     ///< of every serve(), in nanoseconds; off it costs nothing
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const ExpertCacheConfig& config);

/// Serves tokens whose experts have been chosen, over all layers of a model: counts hits and
/// misses, admits what was missed, evicts within the budgets, and says what to move.
///
/// Residency changes with the call: what a request brings in counts as resident from then on, so
/// the caller makes the moves in the order of the requests before the experts are used. What a
/// token uses never leaves for another expert of the same call, and pinned experts never leave. An
/// expert that finds no room (no slots, or all in use by the call or pinned) is missed and not
/// brought in; no request tells of it, and the caller computes it where it lies.
///
/// Decays once a call, whatever the number of tokens. Every call takes O(tokens * top_k) steps, and
/// for each eviction one over the layer's fast slots. Memory is allocated by the constructor and by
/// plan_accesses(). Calls are made one at a time; those about different objects are independent.
/// Every call throws InvalidArgument for a layer or an expert out of range, naming it; whatever a
/// call refuses, nothing has changed. Deterministic in every bit.
class ExpertCache {
 public:
  /// @param backend  whose kernels read resident_experts().
  /// @throws InvalidArgument  when `config` is refused by validate().
  /// @throws Unavailable      when this build or machine lacks `backend`.
  /// @throws std::bad_alloc
  explicit ExpertCache(const ExpertCacheConfig& config, Backend backend = Backend::kCpu);
  ~ExpertCache();
  ExpertCache(ExpertCache&&) noexcept;
  ExpertCache& operator=(ExpertCache&&) noexcept;

  [[nodiscard]] const ExpertCacheConfig& config() const;
  [[nodiscard]] const Residency& residency() const;
  /// [num_experts] of a layer, for the `resident_experts` of a Router's preference; stays in place.
  [[nodiscard]] VectorView<const uint8_t> resident_experts(int32_t layer) const;

  /// At most this many requests come from a call for `num_tokens` of `top_k` experts.
  [[nodiscard]] int64_t max_requests(int64_t num_tokens, int64_t top_k) const;

  /// Serves tokens whose experts are needed together: one token, or a batch.
  ///
  /// @param expert_ids  [num_tokens, slots], host memory; -1: no assignment. The first access to an
  ///                    expert that was not resident is a miss, those after it are hits.
  /// @param requests    written from the front, all urgent; max_requests() are always enough.
  /// @return how many were written.
  /// @throws InvalidArgument  also when there are more requests than `requests` holds, naming both
  ///                          numbers; kBelady: for accesses other than those planned.
  int64_t serve(int32_t layer, MatrixView<const int32_t> expert_ids,
                VectorView<PagingRequest> requests);

  /// The same for one token, the fastest form: a view of one list travels in registers.
  /// @param expert_ids  [slots].
  int64_t serve_token(int32_t layer, VectorView<const int32_t> expert_ids,
                      VectorView<PagingRequest> requests);

  /// One access by itself, as textbooks count: serve() of one token with one expert, whose requests
  /// nobody wants.
  /// @return whether it was a hit.
  bool access(int32_t layer, int32_t expert);

  /// Brings an expert in that nobody waits for; without effect where it is resident.
  ///
  /// @param priority  kPrefetch: it counts as prefetched until it is used or leaves.
  /// @param requests  as serve(), of that priority.
  /// @return how many were written: 0 also when no room can be made.
  int64_t admit(int32_t layer, int32_t expert, PagingPriority priority,
                VectorView<PagingRequest> requests);

  /// Brings in up to `budget` experts whose use pays for it: of the 2 * budget with the highest
  /// affinity above 0 those that are not resident, each when use_probability() is above
  /// the config's threshold and break_even_precision() for the expert that would leave.
  /// @param requests  as admit(), kPrefetch; 2 * budget are always enough.
  int64_t prefetch(int32_t layer, int32_t budget, VectorView<PagingRequest> requests);

  /// Makes an expert leave.
  /// @param requests  gets a page-out of normal priority, if it was resident.
  /// @throws InvalidArgument  also when it is pinned.
  int64_t evict(int32_t layer, int32_t expert, VectorView<PagingRequest> requests);

  /// The expert that would leave next, -1 where there is room or none may leave.
  [[nodiscard]] int32_t next_victim(int32_t layer) const;

  /// A pinned expert never leaves; it has to be resident.
  void pin(int32_t layer, int32_t expert);
  void unpin(int32_t layer, int32_t expert);

  /// Gives a layer more slots or fewer; experts leave as the policy says.
  /// @param requests  page-outs of normal priority; as many as are resident are always enough.
  /// @throws InvalidArgument  also for fewer than are pinned.
  int64_t set_fast_slots(int32_t layer, int32_t slots, VectorView<PagingRequest> requests);

  /// kBelady: all accesses to come of a layer, in order; -1 is left out. Allocates.
  /// @throws InvalidArgument  also for another policy.
  void plan_accesses(int32_t layer, VectorView<const int32_t> expert_ids);

  /// Whether bringing in an expert of that probability of use pays, which makes one of
  /// `victim_probability` leave (0 where there is room): it has to be above the latter, the
  /// config's threshold and break_even_precision().
  [[nodiscard]] bool prefetch_pays(double probability, double victim_probability) const;

  /// The share of calls that use an expert, recent ones weighing more as `decay` says: in [0, 1].
  [[nodiscard]] double use_probability(int32_t layer, int32_t expert) const;

  [[nodiscard]] const MemoryMetrics& metrics() const;
  void reset_metrics();

  class Implementation;

 private:
  friend class MemoryAwareRouter;  // serves its own choices without having them checked again
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard

// Routing results of any backend, brought to RoutingStats without waiting for them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "switchyard/backend.h"
#include "switchyard/permutation.h"
#include "switchyard/routing_stats.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// One routed batch of one layer, whose views lie in the backend's memory. They may be written anew
/// by work that is enqueued in the same stream later.
struct FedRouting {
  int32_t layer = 0;
  int64_t num_tokens = 0;
  /// [num_experts] a Router's, or a Permuter's where capacity drops: the assignments kept.
  VectorView<const int64_t> tokens_per_expert{};
  /// [router_loss_sums_size(E)] or empty, with E at most num_experts: both losses come from it.
  VectorView<const int64_t> loss_sums{};
  const PermutationTotals* totals = nullptr;  ///< [1] or null: what was dropped
  int64_t expert_capacity = INT64_MAX;        ///< as in RoutingRecord
  std::optional<int64_t> latency_ns{};        ///< as in RoutingRecord
};

/// A ring of slots in host memory. record() enqueues copies behind the work that makes the numbers
/// and returns; what has arrived is recorded by a later call. Neither the host nor the stream ever
/// waits, but for finish(). For one thread at a time; several may feed the same RoutingStats.
///
/// Nothing is allocated but by the constructor.
class RoutingStatsFeed {
 public:
  /// @param stats      outlives the feed and stays where it is
  /// @param num_slots  batches that can be under way, 1 to 65536
  /// @throws InvalidArgument  for another number of slots.
  /// @throws Unavailable      when this build or machine lacks `backend`.
  /// @throws std::bad_alloc
  explicit RoutingStatsFeed(RoutingStats& stats, Backend backend = Backend::kAuto,
                            int32_t num_slots = 64);
  /// Waits for what is under way, and records it no more.
  ~RoutingStatsFeed();
  RoutingStatsFeed(RoutingStatsFeed&&) noexcept;
  RoutingStatsFeed& operator=(RoutingStatsFeed&&) noexcept;

  /// @return false where every slot is under way: the batch is skipped and counted as such.
  /// @throws InvalidArgument  as RoutingStats::record() for what the host knows; on kCuda also for
  ///                          memory that is not the device's, misaligned memory, another device's
  ///                          stream, and one that is being captured: record a graph's results
  ///                          behind its launch.
  /// @throws CudaError        when a call fails, naming it, and ever after a sticky error.
  bool record(const FedRouting& routing, StreamView stream = {});

  /// Records what has arrived, in the order of the calls; before a snapshot, for one.
  /// @return how many batches.
  /// @throws CudaError  when the work before one of them failed.
  int64_t collect();
  /// Waits for everything under way and records it.
  /// @throws as collect().
  void finish();

  /// Batches that found no slot.
  [[nodiscard]] int64_t num_skipped() const;
  /// Batches whose numbers, when they arrived, were none that RoutingStats takes.
  [[nodiscard]] int64_t num_refused() const;
  [[nodiscard]] int64_t num_under_way() const;

 private:
  class Ring;
  std::unique_ptr<Ring> ring_;
};

}  // namespace switchyard

// Statistics of routing: how much, how evenly, how fast, what was lost.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "switchyard/backend.h"
#include "switchyard/latency.h"
#include "switchyard/routing_snapshot.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

struct RoutingStatsConfig {
  int32_t num_layers = 1;   ///< 1 to 4096
  int32_t num_experts = 0;  ///< 1 to 2112: a Router's num_expert_ids() at most
  /// Threads that record at once without slowing each other; 1 to 64. More may. Each takes memory:
  /// layers times (8 bytes an expert and 16 KiB), and about 150 KiB.
  int32_t num_recorders = 4;
  /// Nanoseconds since any moment, never falling; empty: the machine's steady clock. Called by any
  /// thread.
  std::function<int64_t()> clock{};
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const RoutingStatsConfig& config);

/// One routed batch of one layer.
struct RoutingRecord {
  int32_t layer = 0;
  int64_t num_tokens = 0;
  /// [num_experts] assignments kept, as a Router or a Permuter gives them.
  VectorView<const int64_t> tokens_per_expert{};
  /// In place of tokens_per_expert: [any tokens, any slots] ids in [-1, num_experts), where -1 is
  /// no assignment.
  MatrixView<const int32_t> expert_ids{};
  int64_t dropped_assignments = 0;
  int64_t fully_dropped_tokens = 0;  ///< among num_tokens; each lost at least one assignment
  std::optional<double> balance_loss{};
  std::optional<double> z_loss{};
  /// Assignments that an expert takes, as capacity_rows() gives them; INT64_MAX: any number.
  int64_t expert_capacity = INT64_MAX;
  std::optional<int64_t> latency_ns{};
};

enum class Phase : uint8_t { kRouting, kPlan, kExchange };

/// Collects what happens to the tokens of a model, from any number of threads.
///
/// Recording neither allocates nor locks, and never waits for another thread: whoever records takes
/// a cell of its own for the time of one call, and where all are taken adds atomically to one that
/// is shared. Each call of a record function is one record. Readers see records whole: a snapshot
/// holds every record whose call had returned before the snapshot began, of those made beside it
/// any, and each with all of its numbers or none. The same records give the same snapshot on any
/// number of threads, but for which of them came last.
///
/// Numbers must be 0 or more and at most kMaxRecorded, losses and masses at most
/// ExactSum::kMaxTerm; what is refused changes nothing. Sums wrap past 2^63.
class RoutingStats {
 public:
  static constexpr int64_t kMaxRecorded = int64_t{1} << 48;

  /// @throws InvalidArgument  when `config` is refused by validate().
  /// @throws std::bad_alloc
  explicit RoutingStats(const RoutingStatsConfig& config);
  ~RoutingStats();
  RoutingStats(RoutingStats&&) noexcept;
  RoutingStats& operator=(RoutingStats&&) noexcept;

  [[nodiscard]] const RoutingStatsConfig& config() const;
  /// By the clock in use.
  [[nodiscard]] int64_t now_ns() const;

  /// All memory is the host's.
  /// @throws InvalidArgument  naming what is out of range, of another size or not a number.
  void record(const RoutingRecord& routing);

  /// Choices of experts that were in fast memory, and of those that were not.
  /// @throws InvalidArgument  as record(), and so below.
  void record_residency(int32_t layer, int64_t hits, int64_t misses);
  /// What a preference for resident experts cost: RoutingResult::sacrificed_mass, one number a
  /// token. All or none are recorded.
  void record_sacrificed_mass(int32_t layer, VectorView<const float> mass_of_tokens);
  void record_sacrificed_mass(int32_t layer, double mass);
  void record_plan(int64_t nanoseconds);
  /// @param bytes  that this rank sent, or dispatched to others
  void record_exchange(int64_t bytes, int64_t nanoseconds);
  void record_rebalance(int64_t moved_slots);
  /// A latency alone.
  void record_latency(Phase phase, int64_t nanoseconds);

  /// Everything since the construction or the last reset. Allocates and takes a lock that readers
  /// share; recorders go on.
  [[nodiscard]] RoutingSnapshot snapshot() const;
  /// The same, and starts anew: each record is in exactly one of consecutive windows.
  RoutingSnapshot take_window();
  void reset();
  /// Of one phase, without the rest: one sort of the recent ones serves all of its percentiles.
  [[nodiscard]] LatencySummary latency(Phase phase) const;
  /// Of all latencies of a phase, within LatencyBuckets::kRelativeError, without a sort and without
  /// an allocation; 0 without latencies.
  /// @throws InvalidArgument  for NaN.
  [[nodiscard]] double latency_percentile_ns(Phase phase, double percent) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard

// Batches of one shape in device memory, and the calls that route and sort them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/gpu_timing.h"
#include "bench/routing_batch.h"
#include "switchyard/sorting_router.h"

namespace switchyard::bench {

/// As many sets of buffers as it takes to pass `cache_bytes`, but at most `max_sets`: calls that
/// take turns on them find nothing in the cache that a server would not.
class GpuBatches {
 public:
  GpuBatches(const RoutingCase& routing_case, int64_t num_tokens, DataType dtype,
             int64_t cache_bytes, int max_sets);
  ~GpuBatches();

  /// route; route_counts, which also counts tokens; sort; route_then_sort, in two calls;
  /// route_and_sort, in one; and route_and_sort_several, the same in several launches whatever the
  /// size. They refer to this object.
  [[nodiscard]] std::vector<TimedCall> calls() const;

  /// Makes every call once on the first set.
  /// @throws std::runtime_error  when a bit differs from what the CPU backend gives.
  void check() const;

  [[nodiscard]] int num_sets() const;
  /// Of a set, in device memory; `copy` counts up without end.
  [[nodiscard]] RoutingInputs inputs(int copy) const;
  /// The first set's permutation, sorted by check().
  [[nodiscard]] const SortingRouter& router() const;
  [[nodiscard]] Permutation permutation() const;
  [[nodiscard]] ConstTensorView gate_weights() const;
  /// The first set's ids on the host.
  [[nodiscard]] const std::vector<int32_t>& expert_ids() const;
  [[nodiscard]] const std::vector<float>& host_gate_weights() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard::bench

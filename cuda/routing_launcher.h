// Checks a routing call's memory and enqueues the router's kernels, for every operation that
// routes; and what launches that give tokens their experts have in common.
#pragma once

#include <cstdint>

#include "cuda/device_state.h"
#include "cuda/routing_task.cuh"

namespace switchyard::cuda {

/// A grid that takes a token with a warp.
struct RouteGrid {
  int64_t blocks = 1;
  int64_t warps = 1;  ///< of a block
};

/// Few tokens go to one block, which needs no other to add up its sums; more of them are spread
/// over the device before blocks are filled.
RouteGrid route_grid(int64_t num_tokens, int64_t max_warps, int64_t max_blocks,
                     int num_multiprocessors);

/// Enqueues a kernel that zeroes what the blocks of a grid add to. What follows may be a dependent
/// launch.
void clear_route_sums(const DeviceState& device, const RouteTask& task, StreamView stream);

struct RouteKernelChoice;

class RoutingLauncher {
 public:
  /// `device` outlives the launcher.
  /// @throws CudaError  when the device cannot be asked what it holds at once.
  RoutingLauncher(const RouterConfig& config, const DeviceState& device);

  /// @throws InvalidArgument  naming the argument that kernels cannot follow.
  void check_memory(const RoutingInputs& inputs, const RoutingResult& result) const;

  [[nodiscard]] RouteTask task(const RoutingInputs& inputs, const RoutingResult& result) const;

  /// Nothing where there are neither tokens nor sums. What follows may be a dependent launch.
  void enqueue(const RouteTask& task, StreamView stream) const;

 private:
  struct Launch {
    void (*kernel)(RouteTask);
    RouteGrid grid;
  };
  [[nodiscard]] Launch launch_for(const RouteTask& task) const;

  const RouterConfig config_;
  const DeviceState& device_;
  const RouteKernelChoice& choice_;
  int num_warps_;       ///< of a block
  int64_t max_blocks_;  ///< that the device holds at once
};

}  // namespace switchyard::cuda

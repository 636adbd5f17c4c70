// Checks a routing call's memory and enqueues the router's kernels, for every operation that
// routes.
#pragma once

#include <cstdint>

#include "cuda/device_state.h"
#include "cuda/routing_task.cuh"

namespace switchyard::cuda {

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
    int64_t blocks;
    int64_t warps;  ///< of a block
  };
  [[nodiscard]] Launch launch_for(const RouteTask& task) const;

  const RouterConfig config_;
  const DeviceState& device_;
  const RouteKernelChoice& choice_;
  int num_warps_;       ///< of a block
  int64_t max_blocks_;  ///< that the device holds at once
};

}  // namespace switchyard::cuda

// Checks a routing call's memory and enqueues the router's kernels, for every operation that
// routes; and what launches that give tokens their experts have in common.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "cuda/device_state.h"
#include "cuda/kernel_choice.h"
#include "cuda/resident_preference.h"
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

/// Blocks of a kernel that the device holds at once.
/// @throws CudaError  when it cannot be asked.
template <class Kernel>
int64_t resident_blocks(const DeviceState& device, Kernel kernel, int num_warps,
                        int64_t shared_bytes) {
  int blocks = 0;
  device.check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
                   &blocks, kernel, num_warps * kWarpSize, static_cast<std::size_t>(shared_bytes)),
               "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return int64_t{std::max(blocks, 1)} * device.num_multiprocessors();
}

/// Where several blocks add up sums, enqueues a kernel that zeroes these. Returns whether what
/// follows may be a dependent launch behind it.
bool clear_route_sums(const DeviceState& device, const RouteTask& task, const RouteGrid& grid,
                      StreamView stream);

/// A task that wants all that a call may want, to ask what kernels need for it.
RouteTask largest_route_task(const RouterConfig& config);

class RoutingLauncher {
 public:
  /// `device` outlives the launcher.
  /// @throws CudaError  when the device cannot be asked what it holds at once.
  RoutingLauncher(const RouterConfig& config, const DeviceState& device);

  /// @throws InvalidArgument  naming the argument that kernels cannot follow.
  void check_memory(const RoutingInputs& inputs, const RoutingResult& result) const;

  [[nodiscard]] RouteTask task(const RoutingInputs& inputs, const RoutingResult& result) const;

  /// Nothing where there are neither tokens nor sums. What follows may be a dependent launch.
  void enqueue(RouteTask task, StreamView stream) const;

 private:
  struct Launch {
    void (*kernel)(RouteTask);
    RouteGrid grid;
  };
  [[nodiscard]] Launch launch_for(const RouteTask& task) const;

  const RouterConfig config_;
  const DeviceState& device_;
  const KernelChoice<RouteTask>& choice_;
  int num_warps_;       ///< of a block
  int64_t max_blocks_;  ///< that the device holds at once
  ResidentPreference preference_;
};

}  // namespace switchyard::cuda

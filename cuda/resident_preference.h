// Lets resident experts take the place of others that a batch has chosen.
#pragma once

#include "cuda/device_state.h"
#include "cuda/kernel_choice.h"
#include "cuda/routing_task.cuh"

namespace switchyard::cuda {

class ResidentPreference {
 public:
  /// @param num_warps  of a block, at most; as many as fit in its shared memory.
  /// `device` outlives the object.
  /// @throws CudaError  when the device cannot be asked what it holds at once.
  ResidentPreference(const RouterConfig& config, const DeviceState& device, int num_warps);

  /// For the rows that a launch before in `stream` routes. Corrects the counts too.
  void enqueue(const RouteTask& task, StreamView stream) const;

 private:
  const DeviceState& device_;
  const KernelChoice<RouteTask, unsigned long long*>& choice_;
  int num_warps_;
  int64_t max_blocks_;
};

}  // namespace switchyard::cuda

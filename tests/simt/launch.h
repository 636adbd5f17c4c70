// How a kernel gets from a launcher to the executor.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/simt/device_hooks.h"

namespace switchyard::simt {

/// What one thread of a launch does.
class KernelCall {
 public:
  virtual ~KernelCall() = default;
  virtual void run_thread() const = 0;
};

/// A kernel with its arguments, which every thread copies.
template <class... Parameters>
class BoundKernel final : public KernelCall {
 public:
  using Values = std::tuple<std::decay_t<Parameters>...>;

  BoundKernel(void (*kernel)(Parameters...), Values arguments)
      : kernel_(kernel), arguments_(std::move(arguments)) {}
  SIMT_UNINSTRUMENTED void run_thread() const override { std::apply(kernel_, arguments_); }

 private:
  void (*kernel_)(Parameters...);
  Values arguments_;
};

/// A launch as it waits in a stream or a graph.
struct Launch {
  const void* kernel = nullptr;  ///< its address, by which the symbol table knows its name
  dim3 grid;
  dim3 block;
  size_t dynamic_shared_bytes = 0;
  std::shared_ptr<const KernelCall> call;
  size_t call_bytes = 0;  ///< of *call, which kernels may read
  const void* stream = nullptr;
  bool dependent = false;       ///< may start before the launch before it in the stream is done
  unsigned cluster_blocks = 1;  ///< consecutive blocks along x that run together
};

/// Checks the launch as cudaLaunchKernelExC does and hands it to the stream.
cudaError_t enqueue(const cudaLaunchConfig_t& config, Launch launch);

template <class... Parameters, class... Arguments>
cudaError_t launch(const cudaLaunchConfig_t& config, void (*kernel)(Parameters...),
                   Arguments&&... arguments) {
  using Bound = BoundKernel<Parameters...>;
  Launch launch;
  launch.kernel = reinterpret_cast<const void*>(kernel);
  launch.grid = config.gridDim;
  launch.block = config.blockDim;
  launch.dynamic_shared_bytes = config.dynamicSmemBytes;
  launch.call = std::make_shared<const Bound>(
      kernel, typename Bound::Values{std::forward<Arguments>(arguments)...});
  launch.call_bytes = sizeof(Bound);
  return enqueue(config, std::move(launch));
}

}  // namespace switchyard::simt

// CUDA declares these for kernels under nvcc only.
// NOLINTBEGIN(readability-identifier-naming)
template <class... Parameters>
cudaError_t cudaFuncSetAttribute(void (*kernel)(Parameters...), cudaFuncAttribute attribute,
                                 int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
template <class... Parameters>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*kernel)(Parameters...)) {
  return cudaFuncGetAttributes(attributes, reinterpret_cast<const void*>(kernel));
}
template <class... Parameters>
cudaError_t cudaOccupancyMaxActiveClusters(int* num_clusters, void (*kernel)(Parameters...),
                                           const cudaLaunchConfig_t* config) {
  return cudaOccupancyMaxActiveClusters(num_clusters, reinterpret_cast<const void*>(kernel),
                                        config);
}
// NOLINTEND(readability-identifier-naming)

// How a kernel gets from a launcher to the executor.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "tests/simt/device_hooks.h"

namespace switchyard::simt {

/// A kernel with its arguments, which every thread copies.
template <class... Parameters>
struct BoundKernel {
  void (*kernel)(Parameters...);
  std::tuple<std::decay_t<Parameters>...> arguments;

  SIMT_UNINSTRUMENTED void operator()() const { std::apply(kernel, arguments); }
};

/// A launch as it waits in a stream or a graph.
struct Launch {
  const void* kernel = nullptr;  ///< its address, by which the symbol table knows its name
  dim3 grid;
  dim3 block;
  size_t dynamic_shared_bytes = 0;
  std::function<void()> thread;  ///< what one thread does
  /// The kernel's arguments inside `thread`, which kernels may read.
  const void* (*find_arguments)(const std::function<void()>& thread) = nullptr;
  size_t argument_bytes = 0;
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
  launch.thread = Bound{kernel, {std::forward<Arguments>(arguments)...}};
  launch.find_arguments = [](const std::function<void()>& thread) -> const void* {
    return thread.target<Bound>();
  };
  launch.argument_bytes = sizeof(Bound);
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
// NOLINTEND(readability-identifier-naming)

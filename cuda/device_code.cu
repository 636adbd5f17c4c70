#include "cuda/device_state.h"

#include <cuda_runtime.h>

#include "switchyard/errors.h"

namespace switchyard::cuda {
namespace {

/// Compiled like all kernels of the library, and so for the same devices.
__global__ void compiled_like_all() {}

}  // namespace

int code_capability() {
  cudaFuncAttributes attributes{};
  const cudaError_t status =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(compiled_like_all));
  if (status != cudaSuccess) throw CudaError("cudaFuncGetAttributes: " + text_of(status));
  return attributes.ptxVersion;
}

}  // namespace switchyard::cuda

#include "cuda/managed_memory.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <new>

#include "cuda/device_state.h"
#include "switchyard/errors.h"

namespace switchyard::cuda {

void* allocate_managed(std::size_t bytes) {
  void* memory = nullptr;
  // The runtime has no memory of 0 bytes.
  const std::size_t size = bytes == 0 ? 1 : bytes;
  if (cudaMallocManaged(&memory, size, cudaMemAttachGlobal) != cudaSuccess) throw std::bad_alloc();
  std::memset(memory, 0, size);
  return memory;
}

void release_managed(void* memory) noexcept { static_cast<void>(cudaFree(memory)); }

void synchronize(StreamView stream) {
  const cudaError_t status = cudaStreamSynchronize(stream.get());
  if (status == cudaSuccess) return;
  throw CudaError("cudaStreamSynchronize: " + text_of(status));
}

}  // namespace switchyard::cuda

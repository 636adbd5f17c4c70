#include "cuda/device_memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "cuda/device_state.h"
#include "switchyard/errors.h"

namespace switchyard::cuda {

// The runtime has no memory of 0 bytes.

void* allocate_device(std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, std::max<std::size_t>(1, bytes)) != cudaSuccess) throw std::bad_alloc();
  return memory;
}

void release_device(void* memory) noexcept { static_cast<void>(cudaFree(memory)); }

void* allocate_pinned(std::size_t bytes) {
  const std::size_t size = std::max<std::size_t>(1, bytes);
  void* memory = nullptr;
  if (cudaMallocHost(&memory, size) != cudaSuccess) throw std::bad_alloc();
  return std::memset(memory, 0, size);
}

void release_pinned(void* memory) noexcept { static_cast<void>(cudaFreeHost(memory)); }

void copy_memory(void* to, const void* from, std::size_t bytes, StreamView stream) {
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream.get());
  if (status == cudaSuccess) return;
  throw CudaError("cudaMemcpyAsync: " + text_of(status));
}

}  // namespace switchyard::cuda

// Managed memory, which the host and the GPU share.
#include <cuda_runtime_api.h>

#include "tests/backend_memory.h"

namespace switchyard::test {

void* allocate_backend_memory(std::size_t bytes) {
  void* memory = nullptr;
  // The CUDA runtime has no memory of 0 bytes.
  if (cudaMallocManaged(&memory, bytes == 0 ? 1 : bytes, cudaMemAttachGlobal) != cudaSuccess) {
    throw std::bad_alloc();
  }
  return memory;
}

void release_backend_memory(void* memory) noexcept { cudaFree(memory); }

void finish_backends() {
  // What went wrong before shows as a wrong result.
  static_cast<void>(cudaDeviceSynchronize());
}

}  // namespace switchyard::test

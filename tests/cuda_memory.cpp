// Managed memory, which the host and the GPU share.
#include "switchyard/backend.h"
#include "tests/backend_memory.h"

namespace switchyard::test {

void* allocate_backend_memory(std::size_t bytes) {
  return allocate_shared_memory(bytes, Backend::kCuda);
}

void release_backend_memory(void* memory) noexcept {
  release_shared_memory(memory, Backend::kCuda);
}

void finish_backends() { synchronize(Backend::kCuda); }

}  // namespace switchyard::test

// Backends of the host take any memory.
#include "tests/backend_memory.h"

namespace switchyard::test {

void* allocate_backend_memory(std::size_t bytes) { return ::operator new(bytes); }

void release_backend_memory(void* memory) noexcept { ::operator delete(memory); }

void finish_backends() {}

}  // namespace switchyard::test

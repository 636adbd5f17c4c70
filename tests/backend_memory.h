// Memory that the host and every backend of a test program can use: each program links the
// definition that suits its backends.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace switchyard::test {

/// @throws std::bad_alloc
void* allocate_backend_memory(std::size_t bytes);
void release_backend_memory(void* memory) noexcept;

/// Returns when the backends have done everything that was enqueued. A test calls it before it
/// reads what a backend wrote.
void finish_backends();

template <typename T>
struct BackendAllocator {
  using value_type = T;

  BackendAllocator() = default;
  template <typename Other>
  BackendAllocator(const BackendAllocator<Other>&) {}

  T* allocate(std::size_t count) {
    return static_cast<T*>(allocate_backend_memory(count * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t) noexcept { release_backend_memory(memory); }
  bool operator==(const BackendAllocator&) const = default;
};

template <typename T>
using BackendVector = std::vector<T, BackendAllocator<T>>;

}  // namespace switchyard::test

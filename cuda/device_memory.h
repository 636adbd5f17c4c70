// Memory of the current device, page-locked memory of the host, and copies.
#pragma once

#include <cstddef>

#include "switchyard/stream.h"

namespace switchyard::cuda {

/// @throws std::bad_alloc
void* allocate_device(std::size_t bytes);
void release_device(void* memory) noexcept;

/// Zeroed. @throws std::bad_alloc
void* allocate_pinned(std::size_t bytes);
void release_pinned(void* memory) noexcept;

/// @throws CudaError
void copy_memory(void* to, const void* from, std::size_t bytes, StreamView stream);

}  // namespace switchyard::cuda

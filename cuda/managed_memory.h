// Memory that the host shares with the current device, and waiting for it.
#pragma once

#include <cstddef>

#include "switchyard/stream.h"

namespace switchyard::cuda {

/// Zeroed. @throws std::bad_alloc
void* allocate_managed(std::size_t bytes);
void release_managed(void* memory) noexcept;

/// @throws CudaError
void synchronize(StreamView stream);

}  // namespace switchyard::cuda

// Memory of a backend's own, memory of the host that it copies to and from without a stop, and the
// copies.
#pragma once

#include <cstddef>

#include "switchyard/backend.h"
#include "switchyard/stream.h"

namespace switchyard {

/// Memory that `backend` uses and, where that is kCuda, the host cannot: the current device's.
/// Aligned to 64 bytes; a device's has undefined contents, others zeros.
/// @throws std::bad_alloc  when the memory is not there.
/// @throws Unavailable     when this build or machine lacks `backend`.
void* allocate_backend_memory(std::size_t bytes, Backend backend);
/// `memory` came from allocate_backend_memory() with the same backend. Waits for the device.
void release_backend_memory(void* memory, Backend backend) noexcept;

/// Zeroed memory of the host, aligned to 64 bytes: page-locked for kCuda, whose devices can read
/// and write it at the same address, each time over their link to the host.
/// @throws std::bad_alloc, Unavailable  as allocate_backend_memory().
void* allocate_pinned_memory(std::size_t bytes, Backend backend);
/// `memory` came from allocate_pinned_memory() with the same backend.
void release_pinned_memory(void* memory, Backend backend) noexcept;

/// Copies between memory of these two kinds. Enqueued in the stream, also where a CUDA graph
/// captures it; done on return on host backends.
/// @throws CudaError
void copy_memory(Backend backend, void* to, const void* from, std::size_t bytes, StreamView stream);

}  // namespace switchyard

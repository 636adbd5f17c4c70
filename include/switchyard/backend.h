// The backends, and memory that one of them shares with the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "switchyard/stream.h"

namespace switchyard {

enum class Backend : uint8_t {
  kAuto,       ///< CUDA where this build has it and the machine a GPU, else the CPU
  kReference,  ///< serial and plain: the definition of right
  kCpu,        ///< vectorised for the host
  kCuda,       ///< NVIDIA GPUs
};

/// "auto", "reference", "cpu" or "cuda".
const char* name_of(Backend backend);

/// Zeroed memory, aligned to 64 bytes, that the host and `backend` can both use: CUDA's managed
/// memory for kCuda, ordinary memory for the others. Meant for tools and tests; a server hands in
/// device memory of its own.
/// @throws std::bad_alloc  when the memory is not there.
/// @throws Unavailable     when this build or machine lacks `backend`.
void* allocate_shared_memory(std::size_t bytes, Backend backend);

/// `memory` came from allocate_shared_memory() with the same backend.
void release_shared_memory(void* memory, Backend backend) noexcept;

/// Returns when the backend has done what was enqueued in `stream`; at once for host backends. The
/// host calls it before it reads shared memory that a device wrote.
/// @throws CudaError  when that work failed.
void synchronize(Backend backend, StreamView stream = {});

}  // namespace switchyard

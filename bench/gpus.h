// What the programs for ranks ask of CUDA and NCCL. gpus.cpp is linked where there are both, and
// no_gpus.cpp, which refuses, where one is missing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "switchyard/communicator.h"
#include "switchyard/stream.h"

namespace switchyard::bench {

/// @throws Unavailable  when this process sees no GPU, or the build knows none.
void check_gpus();

/// Takes a GPU for this rank, and calls `body` with its end of an NCCL group of the same ranks.
/// Collective.
/// @param bootstrap  over which the ranks find each other.
/// @throws Unavailable      on every rank, where one has no GPU.
/// @throws InvalidArgument  on every rank, where ranks would share a GPU and NCCL does not let
/// them.
void run_on_gpu(Communicator& bootstrap, const CommunicatorOptions& options,
                const std::function<void(Communicator&)>& body);

struct GpuPlace {
  int index = 0;
  std::string name;
};
/// The one that the calling thread uses.
GpuPlace current_gpu();

// Of the current GPU. All throw CudaError.

/// Zeroed.
std::byte* allocate_on_gpu(int64_t num_bytes);
void release_on_gpu(std::byte* memory) noexcept;
/// Between the host and a GPU, or on it. Returns when it is done.
void copy_with_gpu(std::byte* to, const std::byte* from, int64_t num_bytes);
/// On the GPU, in the stream.
void copy_on_gpu(std::byte* to, const std::byte* from, int64_t num_bytes, StreamView stream);
/// That waits for no other stream.
StreamView create_gpu_stream();
void destroy_gpu_stream(StreamView stream) noexcept;

}  // namespace switchyard::bench

#include "bench/gpu_floors.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "bench/gpu_floors_kernels.cuh"

namespace switchyard::bench {
namespace {

void require_success(cudaError_t status, const char* call) {
  if (status != cudaSuccess)
    throw std::runtime_error(std::string(call) + cudaGetErrorString(status));
}

}  // namespace

void enqueue_empty(StreamView stream) {
  require_success(SWITCHYARD_LAUNCH(empty_kernel, {.grid = 1, .block = 32, .stream = stream.get()}),
                  "launch of empty_kernel: ");
}

void enqueue_copy(const void* from, void* to, int64_t bytes, StreamView stream) {
  // Enough blocks for every GPU, and a few turns for each.
  constexpr int64_t kMaxBlocks = 4096;
  const int64_t count = bytes / 16;
  const int64_t blocks = std::clamp<int64_t>(
      (count + kCopyThreads * kCopiesInFlight - 1) / (kCopyThreads * kCopiesInFlight), 1,
      kMaxBlocks);
  require_success(
      SWITCHYARD_LAUNCH(
          copy_kernel,
          {.grid = static_cast<unsigned>(blocks), .block = kCopyThreads, .stream = stream.get()},
          static_cast<const uint4*>(from), static_cast<uint4*>(to), count),
      "launch of copy_kernel: ");
}

}  // namespace switchyard::bench

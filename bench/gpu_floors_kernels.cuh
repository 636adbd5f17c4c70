// Kernels that no operation can beat: one that does nothing, and one that only copies.
#pragma once

#include "cuda/intrinsics.cuh"

namespace switchyard::bench {

__global__ void empty_kernel() {}

inline constexpr int kCopyThreads = 256;
inline constexpr int kCopiesInFlight = 4;

/// Copies `count` units of 16 bytes.
__global__ void __launch_bounds__(kCopyThreads)
    copy_kernel(const uint4* from, uint4* to, int64_t count) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; first + (kCopiesInFlight - 1) * step < count; first += kCopiesInFlight * step) {
    uint4 units[kCopiesInFlight];
#pragma unroll
    for (int i = 0; i < kCopiesInFlight; ++i) units[i] = cuda::load16(from + first + i * step);
#pragma unroll
    for (int i = 0; i < kCopiesInFlight; ++i) cuda::store16(to + first + i * step, units[i]);
  }
  for (; first < count; first += step) cuda::store16(to + first, cuda::load16(from + first));
}

}  // namespace switchyard::bench

// What device code takes from outside CUDA's own names: the one header that reads differently under
// nvcc and under a host compiler, where an executor stands in for the GPU.
//
// Kernels include this header and no other of CUDA's. Besides what it declares they use CUDA's
// built-in variables and functions under their own names. Blocks are one-dimensional and whole
// warps.
#pragma once

#if defined(__CUDACC__)
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include "simt/simt.h"
#endif

#include <cstdint>

/// SWITCHYARD_SHARED(int, counts, [kWarps][32]); declares an array, or without extents a variable,
/// in static shared memory. Like any declaration it stands before code that may leave the kernel.
///
/// SWITCHYARD_DYNAMIC_SHARED(float, scores); declares `float* const scores`, the start of the
/// launch's shared_bytes, 16-byte aligned. One kernel may declare it under several types.
#if defined(__CUDACC__)
#define SWITCHYARD_SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define SWITCHYARD_DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(16) unsigned char switchyard_shared_bytes[]; \
  type* const name = reinterpret_cast<type*>(switchyard_shared_bytes)
#else
#define SWITCHYARD_SHARED(type, name, ...) SIMT_SHARED(type, name, __VA_ARGS__)
#define SWITCHYARD_DYNAMIC_SHARED(type, name) SIMT_DYNAMIC_SHARED(type, name)
#endif

/// SWITCHYARD_LAUNCH((kernel<float, 8>), config, arguments…) enqueues a kernel and returns
/// cudaError_t. The kernel may also be a pointer that a table gave.
#define SWITCHYARD_LAUNCH(kernel, ...) ::switchyard::cuda::launch(kernel, __VA_ARGS__)

namespace switchyard::cuda {

inline constexpr int kWarpSize = 32;

struct LaunchConfig {
  dim3 grid;
  dim3 block;
  int64_t shared_bytes = 0;  ///< dynamic shared memory; beyond 48 KiB the kernel must be opted in
  cudaStream_t stream = nullptr;
  /// May start while the grid before it in the stream still runs, and then must call
  /// wait_for_previous_grid() before it touches memory. For devices of compute capability 9.0 on.
  bool dependent = false;
  /// Consecutive blocks that run together and reach each other's shared memory; they divide the
  /// grid. From 2 on for devices of compute capability 9.0 on, beyond 8 for kernels opted in.
  unsigned cluster_blocks = 1;
};

/// count / divisor, rounded up.
constexpr int64_t ceil_div(int64_t count, int64_t divisor) {
  return (count + divisor - 1) / divisor;
}

/// A launch in CUDA's terms.
class NativeLaunch {
 public:
  explicit NativeLaunch(const LaunchConfig& config) {
    config_.gridDim = config.grid;
    config_.blockDim = config.block;
    config_.dynamicSmemBytes = static_cast<size_t>(config.shared_bytes);
    config_.stream = config.stream;
    config_.attrs = attributes_;
    if (config.dependent) {
      cudaLaunchAttribute& attribute = attributes_[config_.numAttrs++];
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
    }
    if (config.cluster_blocks > 1) {
      cudaLaunchAttribute& attribute = attributes_[config_.numAttrs++];
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = config.cluster_blocks;
      attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    }
  }
  NativeLaunch(const NativeLaunch&) = delete;
  NativeLaunch& operator=(const NativeLaunch&) = delete;

  [[nodiscard]] const cudaLaunchConfig_t& config() const { return config_; }

 private:
  cudaLaunchAttribute attributes_[2]{};
  cudaLaunchConfig_t config_{};
};

/// Enqueues `kernel`; returns what the launch itself says, never what the kernel does later.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchConfig& config,
                   Arguments&&... arguments) {
  const NativeLaunch native(config);
#if defined(__CUDACC__)
  return cudaLaunchKernelEx(&native.config(), kernel, static_cast<Arguments&&>(arguments)...);
#else
  return simt::launch(native.config(), kernel, static_cast<Arguments&&>(arguments)...);
#endif
}

/// Waits until the grid before this one in the stream is done and its writes are visible. Costs
/// nothing in a launch that is not `dependent`.
__device__ __forceinline__ void wait_for_previous_grid() {
#if !defined(__CUDACC__)
  simt::wait_for_previous_grid();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

/// Lets a `dependent` grid behind this one start once every block has called it or has ended.
__device__ __forceinline__ void let_next_grid_start() {
#if !defined(__CUDACC__)
  simt::let_next_grid_start();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/// For a `dependent` grid that reads, before it waits, what was complete before the grid in front
/// of it could start. That is in memory then, but only who waits has a promise that this
/// multiprocessor's cache forgets what it held before; this makes it forget. By one thread, before
/// a barrier of its block.
__device__ __forceinline__ void forget_cached() { __threadfence(); }

/// A cluster: this block's rank, and how many there are. A launch without clusters is one a block,
/// as is every launch of code for devices before compute capability 9.0.
///
/// The cluster's barrier has two steps, so that threads can do what others need not wait for in
/// between: nobody comes out of wait_for_cluster() before every thread of every block has called
/// arrive_at_cluster(), and what was written before that is visible then. All threads take both.
///
/// arrive_at_cluster_shared() is the arrival at the same barrier after which only what was written
/// to shared memory is visible: it does not wait for what is on its way to device memory. After
/// arrive_at_cluster_relaxed() nothing need be visible: it is for a block's last look at others.
///
/// shared_of_block() gives the address of what block `rank` has where this block has `shared`, in
/// shared memory. It may be touched from the cluster's first barrier on, and no block may end
/// before the others are done with its memory.
#if !defined(__CUDACC__)
using simt::arrive_at_cluster;
using simt::arrive_at_cluster_relaxed;
using simt::arrive_at_cluster_shared;
using simt::cluster_rank;
using simt::cluster_size;
using simt::wait_for_cluster;

template <class T>
T* shared_of_block(T* shared, unsigned rank) {
  return static_cast<T*>(simt::shared_of_block(shared, rank));
}
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ __forceinline__ unsigned cluster_rank() {
  return cooperative_groups::cluster_group::block_rank();
}
__device__ __forceinline__ unsigned cluster_size() {
  return cooperative_groups::cluster_group::num_blocks();
}
__device__ __forceinline__ void arrive_at_cluster() {
  (void)cooperative_groups::cluster_group::barrier_arrive();
}
__device__ __forceinline__ void arrive_at_cluster_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void arrive_at_cluster_shared() {
#if CUDART_VERSION >= 12080
  asm volatile("fence.release.sync_restrict::shared::cta.cluster;" ::: "memory");
  arrive_at_cluster_relaxed();
#else
  arrive_at_cluster();
#endif
}
__device__ __forceinline__ void wait_for_cluster() {
  cooperative_groups::cluster_group::barrier_wait();
}

template <class T>
__device__ __forceinline__ T* shared_of_block(T* shared, unsigned rank) {
  return cooperative_groups::cluster_group::map_shared_rank(shared, static_cast<int>(rank));
}
#else
__device__ __forceinline__ unsigned cluster_rank() { return 0; }
__device__ __forceinline__ unsigned cluster_size() { return 1; }
__device__ __forceinline__ void arrive_at_cluster() {}
__device__ __forceinline__ void arrive_at_cluster_relaxed() {}
__device__ __forceinline__ void arrive_at_cluster_shared() {}
__device__ __forceinline__ void wait_for_cluster() { __syncthreads(); }

template <class T>
__device__ __forceinline__ T* shared_of_block(T* shared, unsigned) {
  return shared;
}
#endif

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % kWarpSize); }

__device__ __forceinline__ int warp_index_in_block() {
  return static_cast<int>(threadIdx.x / kWarpSize);
}

__device__ __forceinline__ int warps_per_block() {
  return static_cast<int>(blockDim.x / kWarpSize);
}

__device__ __forceinline__ int64_t global_warp_index() {
  return static_cast<int64_t>(blockIdx.x) * warps_per_block() + warp_index_in_block();
}

inline constexpr uint32_t kAllLanes = 0xffffffffu;

/// Bits of the lanes before this one.
__device__ __forceinline__ uint32_t lanes_before() { return (1u << lane_index()) - 1u; }

/// Loads and stores of 2, 4, 8 or 16 bytes at once through a vector type such as uint4, at an
/// address aligned to its size; a GPU stops at any other, and so does the executor. The streaming
/// forms tell the caches that nobody reads this memory again; they take CUDA's own vector types.
template <class T>
__device__ __forceinline__ T load_vector(const T* address) {
#if !defined(__CUDACC__)
  simt::require_alignment(address, sizeof(T));
#endif
  return *address;
}

template <class T>
__device__ __forceinline__ T load_vector_streaming(const T* address) {
  return __ldcs(address);
}

template <class T>
__device__ __forceinline__ void store_vector(T* address, const T& value) {
#if !defined(__CUDACC__)
  simt::require_alignment(address, sizeof(T));
#endif
  *address = value;
}

template <class T>
__device__ __forceinline__ void store_vector_streaming(T* address, const T& value) {
  __stcs(address, value);
}

/// The 16 bytes at a 16-byte aligned address, whatever they hold.
__device__ __forceinline__ uint4 load16(const void* address) {
  return load_vector(static_cast<const uint4*>(address));
}

__device__ __forceinline__ void store16(void* address, const uint4& value) {
  store_vector(static_cast<uint4*>(address), value);
}

}  // namespace switchyard::cuda

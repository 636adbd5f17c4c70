#include "tests/simt/intrinsics_kernels.h"

#include "cuda/intrinsics.cuh"

namespace switchyard::test {
namespace {

using cuda::kWarpSize;
using cuda::lane_index;
using cuda::LaunchConfig;

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kAtomicThreads = 96;

__global__ void shuffle_kernel(int argument, int width, int* out) {
  const int lane = lane_index();
  const int value = 100 * lane;
  out[lane] = __shfl_sync(kAllLanes, value, argument, width);
  out[32 + lane] = __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(argument), width);
  out[64 + lane] = __shfl_down_sync(kAllLanes, value, static_cast<unsigned>(argument), width);
  out[96 + lane] = __shfl_xor_sync(kAllLanes, value, argument, width);
}

__global__ void shuffle_types_kernel(double* out) {
  const int lane = lane_index();
  const int next = (lane + 1) % kWarpSize;
  out[lane] = __shfl_sync(kAllLanes, lane + 0.5, next);
  const __nv_bfloat16 narrow = __float2bfloat16(static_cast<float>(lane));
  out[32 + lane] = static_cast<double>(__bfloat162float(__shfl_sync(kAllLanes, narrow, next)));
  const long long wide = 1ll << lane;
  out[64 + lane] = static_cast<double>(__shfl_sync(kAllLanes, wide, next));
  const __half half = __float2half(static_cast<float>(lane) / 2);
  out[96 + lane] = static_cast<double>(__half2float(__shfl_sync(kAllLanes, half, next)));
}

__global__ void vote_kernel(unsigned predicates, VoteResults* out) {
  const int lane = lane_index();
  const auto predicate = static_cast<int>(predicates & 1u << lane);
  out[lane] = {__ballot_sync(kAllLanes, predicate), __any_sync(kAllLanes, predicate),
               __all_sync(kAllLanes, predicate)};
}

__global__ void match_kernel(int group_size, MatchResults* out) {
  const int lane = lane_index();
  const int group = lane / group_size;
  MatchResults results{};
  results.any = __match_any_sync(kAllLanes, group);
  results.any_wide = __match_any_sync(kAllLanes, static_cast<unsigned long long>(group) << 40);
  results.all = __match_all_sync(kAllLanes, group, &results.all_equal);
  out[lane] = results;
}

__global__ void reduction_kernel(const int* values, Reductions* out) {
  const int lane = lane_index();
  const int value = values[lane];
  const auto bits = static_cast<unsigned>(value);
  Reductions results{};
  results.sum = __reduce_add_sync(kAllLanes, value);
  results.lowest = __reduce_min_sync(kAllLanes, value);
  results.highest = __reduce_max_sync(kAllLanes, value);
  results.lowest_unsigned = __reduce_min_sync(kAllLanes, bits);
  results.highest_unsigned = __reduce_max_sync(kAllLanes, bits);
  results.conjunction = __reduce_and_sync(kAllLanes, bits);
  results.disjunction = __reduce_or_sync(kAllLanes, bits);
  results.difference = __reduce_xor_sync(kAllLanes, bits);
  out[lane] = results;
}

__global__ void split_warp_kernel(unsigned* out) {
  const int lane = lane_index();
  constexpr unsigned kOdd = 0xaaaaaaaau;
  if (lane % 2 == 1) {
    out[lane] = __reduce_add_sync(kOdd, static_cast<unsigned>(lane));
  } else {
    out[lane] = __ballot_sync(~kOdd, lane < 4);
    __syncwarp(~kOdd);
  }
}

__global__ void active_mask_kernel(unsigned* out) {
  const int lane = lane_index();
  out[lane] = __activemask();
  out[32 + lane] = 0;
  __syncwarp();
  if (lane < 8) out[32 + lane] = __activemask();
}

__global__ void barrier_kernel(BarrierResults* out) {
  SWITCHYARD_SHARED(int, values, [1024]);
  const auto index = static_cast<int>(threadIdx.x + blockDim.x * threadIdx.y);
  const auto count = static_cast<int>(blockDim.x * blockDim.y);
  const int predicate = index % 3 == 0;
  BarrierResults results{};
  values[index] = 7 * index;
  __syncthreads();
  results.neighbor = values[(index + 1) % count];
  results.count = __syncthreads_count(predicate);
  results.any = __syncthreads_or(predicate);
  results.all = __syncthreads_and(predicate);
  out[index] = results;
}

__device__ void update(AtomicResults* results, int thread) {
  const auto bits = static_cast<unsigned>(thread);
  atomicAdd(&results->sum, thread);
  atomicSub(&results->difference, thread);
  atomicMin(&results->lowest, -thread);
  atomicMax(&results->highest, thread);
  atomicAnd(&results->conjunction, bits | 0x100u);
  atomicOr(&results->disjunction, bits);
  atomicXor(&results->parity, 1u << (thread % 32));
  atomicInc(&results->up, 9u);
  atomicDec(&results->down, 9u);
  atomicExch(&results->exchanged, 5u);
  atomicCAS(&results->swapped, bits, bits + 1);
  atomicAdd(&results->float_sum, 0.5f);
  atomicAdd(&results->wide_sum, 1ull << 33);
}

__global__ void atomic_kernel(bool shared, AtomicResults* out) {
  SWITCHYARD_SHARED(AtomicResults, block_results);
  const auto thread = static_cast<int>(threadIdx.x);
  if (thread == 0) block_results = AtomicResults{};
  __syncthreads();
  update(shared ? &block_results : out, thread);
  __syncthreads();
  // A lone block adds to zeros.
  if (thread == 0 && shared) *out = block_results;
}

__global__ void lock_kernel(int* lock, int* value) {
  while (atomicCAS(lock, 0, 1) != 0) __nanosleep(20);
  __threadfence();
  volatile int* guarded = value;
  *guarded = *guarded + 1;
  __threadfence();
  atomicExch(lock, 0);
}

__global__ void position_kernel(Position* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned threads_per_block = blockDim.x * blockDim.y * blockDim.z;
  out[block * threads_per_block + thread] = {threadIdx, blockIdx, blockDim, gridDim};
}

__global__ void index_kernel(int64_t num_threads, int64_t* out) {
  const int64_t warp = cuda::global_warp_index();
  const int64_t thread = warp * kWarpSize + lane_index();
  out[thread] = lane_index();
  out[num_threads + thread] = cuda::warp_index_in_block();
  out[2 * num_threads + thread] = warp;
}

__global__ void vector_copy_kernel(const uint4* in, int count, uint4* out) {
  const auto index = static_cast<int>(threadIdx.x);
  if (index >= count) return;
  cuda::store16(out + index, cuda::load16(in + index));
  cuda::store_vector_streaming(out + count + index, cuda::load_vector_streaming(in + index));
}

__global__ void dynamic_shared_kernel(int num_values, int* out) {
  SWITCHYARD_SHARED(int, total);
  SWITCHYARD_DYNAMIC_SHARED(int, values);
  const auto thread = static_cast<int>(threadIdx.x);
  const auto stride = static_cast<int>(blockDim.x);
  if (thread == 0) total = 0;
  for (int i = thread; i < num_values; i += stride) {
    values[i] = i + static_cast<int>(blockIdx.x);
  }
  __syncthreads();
  // Backwards, so that other threads' values are read.
  for (int i = thread; i < num_values; i += stride) atomicAdd(&total, values[num_values - 1 - i]);
  __syncthreads();
  if (thread == 0) out[blockIdx.x] = total;
}

__global__ void step_kernel(int* values, int size, int addend) {
  cuda::wait_for_previous_grid();
  const auto index = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  cuda::let_next_grid_start();
  if (index < size) values[index] = 2 * values[index] + addend;
}

LaunchConfig one_warp() { return {.grid = dim3(1), .block = dim3(kWarpSize)}; }

}  // namespace

cudaError_t launch_shuffles(int argument, int width, int* out) {
  return SWITCHYARD_LAUNCH(shuffle_kernel, one_warp(), argument, width, out);
}
cudaError_t launch_shuffles_of_types(double* out) {
  return SWITCHYARD_LAUNCH(shuffle_types_kernel, one_warp(), out);
}
cudaError_t launch_votes(unsigned predicates, VoteResults* out) {
  return SWITCHYARD_LAUNCH(vote_kernel, one_warp(), predicates, out);
}
cudaError_t launch_matches(int group_size, MatchResults* out) {
  return SWITCHYARD_LAUNCH(match_kernel, one_warp(), group_size, out);
}
cudaError_t launch_reductions(const int* values, Reductions* out) {
  return SWITCHYARD_LAUNCH(reduction_kernel, one_warp(), values, out);
}
cudaError_t launch_split_warp(unsigned* out) {
  return SWITCHYARD_LAUNCH(split_warp_kernel, one_warp(), out);
}
cudaError_t launch_active_masks(unsigned* out) {
  return SWITCHYARD_LAUNCH(active_mask_kernel, one_warp(), out);
}
cudaError_t launch_barriers(dim3 block, BarrierResults* out) {
  return SWITCHYARD_LAUNCH(barrier_kernel, LaunchConfig{.grid = dim3(1), .block = block}, out);
}
cudaError_t launch_atomics(int num_blocks, bool shared, AtomicResults* out) {
  const LaunchConfig config{.grid = dim3(static_cast<unsigned>(num_blocks)),
                            .block = dim3(kAtomicThreads)};
  return SWITCHYARD_LAUNCH(atomic_kernel, config, shared, out);
}
cudaError_t launch_lock(int num_blocks, int* lock, int* value) {
  const LaunchConfig config{.grid = dim3(static_cast<unsigned>(num_blocks)),
                            .block = dim3(kAtomicThreads)};
  return SWITCHYARD_LAUNCH(lock_kernel, config, lock, value);
}
cudaError_t launch_positions(dim3 grid, dim3 block, Position* out) {
  return SWITCHYARD_LAUNCH(position_kernel, LaunchConfig{.grid = grid, .block = block}, out);
}
cudaError_t launch_indices(int num_blocks, int warps_per_block, int64_t* out) {
  const int threads = warps_per_block * kWarpSize;
  const LaunchConfig config{.grid = dim3(static_cast<unsigned>(num_blocks)),
                            .block = dim3(static_cast<unsigned>(threads))};
  return SWITCHYARD_LAUNCH(index_kernel, config, int64_t{num_blocks} * threads, out);
}
cudaError_t launch_vector_copies(const uint4* in, int count, uint4* out) {
  return SWITCHYARD_LAUNCH(vector_copy_kernel, one_warp(), in, count, out);
}
cudaError_t launch_dynamic_shared(int num_blocks, int num_values, int64_t shared_bytes, int* out) {
  const LaunchConfig config{.grid = dim3(static_cast<unsigned>(num_blocks)),
                            .block = dim3(kAtomicThreads),
                            .shared_bytes = shared_bytes};
  constexpr int64_t kWithoutOptingIn = 48 << 10;
  if (shared_bytes > kWithoutOptingIn) {
    const cudaError_t error =
        cudaFuncSetAttribute(dynamic_shared_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  return SWITCHYARD_LAUNCH(dynamic_shared_kernel, config, num_values, out);
}
cudaError_t launch_step(int* values, int size, int addend, cudaStream_t stream, bool dependent) {
  constexpr int kThreads = 64;
  const LaunchConfig config{.grid = dim3(static_cast<unsigned>((size + kThreads - 1) / kThreads)),
                            .block = dim3(kThreads),
                            .stream = stream,
                            .dependent = dependent};
  return SWITCHYARD_LAUNCH(step_kernel, config, values, size, addend);
}

}  // namespace switchyard::test

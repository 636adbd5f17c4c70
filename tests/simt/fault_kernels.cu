#include "tests/simt/fault_kernels.h"

#include <vector>

#include "cuda/intrinsics.cuh"

namespace switchyard::test {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kThreads = 64;

__device__ int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ int global_index() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

// Barriers in a block.

__global__ void no_barrier(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  values[thread] = thread * thread;
  args.out[thread] = values[(thread + 1) % kThreads];
}

/// In a forward order the value is there all the same.
__global__ void no_barrier_before_lower(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  values[thread] = thread * thread;
  args.out[thread] = values[thread > 0 ? thread - 1 : 0];
}

__global__ void no_barrier_before_reuse(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  int sum = 0;
  for (int round = 0; round < 4; ++round) {
    values[thread] = round * 1000 + thread;
    __syncthreads();
    sum += values[kThreads - 1 - thread];
  }
  args.out[thread] = sum;
}

__global__ void exit_before_barrier(FaultArguments args) {
  if (thread_index() >= args.size) return;
  __syncthreads();
  args.out[thread_index()] = 1;
}

__global__ void two_barriers(FaultArguments args) {
  if (thread_index() < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  args.out[thread_index()] = 1;
}

__global__ void unequal_barriers(FaultArguments args) {
  const int rounds = thread_index() < 32 ? 2 : 3;
  for (int round = 0; round < rounds; ++round) __syncthreads();
  args.out[thread_index()] = 1;
}

// Shared memory.

__global__ void beyond_shared(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  SWITCHYARD_SHARED(int, others, [kThreads]);
  const int thread = thread_index();
  others[thread] = 7;
  values[thread + 1] = thread;
  __syncthreads();
  args.out[thread] = others[thread];
}

__global__ void beyond_dynamic(FaultArguments args) {
  SWITCHYARD_DYNAMIC_SHARED(int, values);
  const int thread = thread_index();
  values[thread] = thread;
  if (thread == 0) values[kThreads] = 1;
  __syncthreads();
  args.out[thread] = values[thread];
}

[[gnu::noinline]] __device__ void put(int* values, int index, int value) { values[index] = value; }

__global__ void beyond_shared_pointer(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  put(values, thread_index() + 1, thread_index());
  __syncthreads();
  args.out[thread_index()] = 1;
}

struct Block {
  int values[kThreads];
};

/// A copy of a whole structure is a write as well.
__global__ void structure_race(FaultArguments args) {
  SWITCHYARD_SHARED(Block, block);
  Block zeros{};
  zeros.values[0] = args.size;
  block = zeros;
  args.out[thread_index()] = block.values[thread_index()];
}

__global__ void uninitialized_shared(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  if (thread > 0) values[thread] = 1;
  __syncthreads();
  args.out[thread] = values[thread] + 1;
}

struct Large {
  int values[13 * 1024];
};

// ptxas refuses it as well.
#if !defined(__CUDACC__)
__global__ void large_shared(FaultArguments args) {
  SWITCHYARD_SHARED(Large, large);
  large.values[thread_index()] = 1;
  args.out[thread_index()] = large.values[thread_index()];
}
#endif

// Warps.

__global__ void mask_without_self(FaultArguments args) {
  args.out[thread_index()] = __shfl_xor_sync(0x0000ffffu, thread_index(), 1);
}

__global__ void mask_of_absent_lanes(FaultArguments args) {
  int value = thread_index();
  if (value < 16) {
    for (int lanes = 8; lanes > 0; lanes /= 2) value += __shfl_xor_sync(kAllLanes, value, lanes);
  }
  args.out[thread_index()] = value;
}

__global__ void lanes_at_different_shuffles(FaultArguments args) {
  int value = thread_index();
  if (value < 16) value += __shfl_xor_sync(kAllLanes, value, 8);
  value += __shfl_xor_sync(kAllLanes, value, 1);
  args.out[thread_index()] = value;
}

__global__ void shuffle_from_absent_lane(FaultArguments args) {
  int value = thread_index();
  if (value < 16) value = __shfl_down_sync(0x0000ffffu, value, 8);
  args.out[thread_index()] = value;
}

__global__ void mask_of_exited_lanes(FaultArguments args) {
  if (thread_index() >= args.size) return;
  args.out[thread_index()] = __shfl_xor_sync(kAllLanes, thread_index(), 16);
}

__global__ void warp_and_block_wait(FaultArguments args) {
  if (thread_index() == 3) {
    __syncthreads();
  } else {
    __syncwarp();
  }
  args.out[thread_index()] = 1;
  __syncthreads();
}

__global__ void no_warp_barrier(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [32]);
  volatile int* shared = values;
  shared[thread_index()] = thread_index();
  args.out[thread_index()] = shared[thread_index() ^ 1];
}

__global__ void shuffle_for_barrier(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [32]);
  volatile int* shared = values;
  shared[thread_index()] = thread_index();
  const int other = __shfl_xor_sync(kAllLanes, thread_index(), 1);
  args.out[thread_index()] = shared[other];
}

// Device memory.

__global__ void beyond_allocation(FaultArguments args) { args.out[args.size + global_index()] = 1; }

__global__ void null_pointer(FaultArguments args) { args.out[thread_index()] = args.in[0]; }

__global__ void copy(FaultArguments args) { args.out[thread_index()] = args.in[thread_index()]; }

__global__ void misaligned_vector(FaultArguments args) {
  const auto* vectors = reinterpret_cast<const int4*>(args.in + 1);
  args.out[thread_index()] = cuda::load_vector(vectors).x;
}

__global__ void misaligned_atomic(FaultArguments args) {
  auto* bytes = reinterpret_cast<char*>(args.out);
  atomicAdd(reinterpret_cast<int*>(bytes + 2), 1);
}

__global__ void lost_update(FaultArguments args) { args.out[0] = args.out[0] + 1; }

__global__ void unordered_blocks(FaultArguments args) {
  args.out[blockIdx.x] = 1;
  args.out[gridDim.x + blockIdx.x] = args.out[(blockIdx.x + 1) % gridDim.x];
}

__global__ void waits_for_block(FaultArguments args) {
  if (blockIdx.x == 0) {
    while (atomicAdd(args.ticket, 0u) == 0) {
    }
    args.out[0] = 1;
  } else {
    atomicExch(args.ticket, 1u);
  }
}

/// The last block to arrive adds up what all have written.
template <bool kFence>
__device__ void sum_in_last_block(const FaultArguments& args) {
  SWITCHYARD_SHARED(int, is_last);
  const int count = static_cast<int>(gridDim.x * blockDim.x);
  args.out[1 + global_index()] = 1;
  if (kFence) __threadfence();
  __syncthreads();
  if (thread_index() == 0) {
    if (kFence) __threadfence();
    is_last = atomicAdd(args.ticket, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (is_last == 0) return;
  int sum = 0;
  for (int i = thread_index(); i < count; i += kThreads) sum += args.out[1 + i];
  atomicAdd(args.out, sum);
}

__global__ void ticket_with_fence(FaultArguments args) { sum_in_last_block<true>(args); }
__global__ void ticket_without_fence(FaultArguments args) { sum_in_last_block<false>(args); }

// Launches that start before the one before them is done.

__global__ void fill(FaultArguments args) {
  cuda::let_next_grid_start();
  args.out[global_index()] = 1;
}

__global__ void read_one(FaultArguments args) {
  cuda::let_next_grid_start();
  if (global_index() == 0) *args.ticket = static_cast<unsigned>(args.out[0]);
}

__global__ void read_before_wait(FaultArguments args) {
  const int before = args.out[global_index()];
  cuda::wait_for_previous_grid();
  args.out[global_index()] = before + 1;
}

/// Its own name for a chain of three.
__global__ void read_beside_two(FaultArguments args) {
  const int before = args.out[global_index()];
  cuda::wait_for_previous_grid();
  args.out[global_index()] = before + 1;
}

__global__ void write_before_wait(FaultArguments args) {
  args.out[global_index()] = 2;
  cuda::wait_for_previous_grid();
}

__global__ void add_before_wait(FaultArguments args) {
  atomicAdd(&args.out[0], 1);
  cuda::wait_for_previous_grid();
}

__global__ void read_after_wait(FaultArguments args) {
  cuda::wait_for_previous_grid();
  ++args.out[global_index()];
}

__global__ void pass_on_at_once(FaultArguments) {
  cuda::let_next_grid_start();
  cuda::wait_for_previous_grid();
}

__global__ void pass_on_after_wait(FaultArguments) {
  cuda::wait_for_previous_grid();
  cuda::let_next_grid_start();
}

// The rest.

[[gnu::noinline]] __device__ int recurse(int depth, volatile int* previous) {
  volatile int frame[64];
  frame[depth % 64] = *previous + depth;
  return depth == 0 ? frame[0] : recurse(depth - 1, frame) + frame[depth % 64];
}

__global__ void deep_recursion(FaultArguments args) {
  volatile int start = 1;
  args.out[thread_index()] = recurse(args.size, &start);
}

__global__ void trap(FaultArguments args) {
  if (args.in[thread_index()] == 0) __trap();
}

/// Correct: every warp has its own part, ordered by barriers of the warp alone.
__global__ void warp_barriers(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  for (int round = 0; round < 3; ++round) {
    values[thread] = round + thread;
    __syncwarp();
    args.out[thread] = values[thread ^ 1];
    __syncwarp();
  }
}

struct NamedKernel {
  const char* name;
  void (*kernel)(FaultArguments);
};

constexpr NamedKernel kKernels[] = {
    {"no_barrier", no_barrier},
    {"no_barrier_before_lower", no_barrier_before_lower},
    {"no_barrier_before_reuse", no_barrier_before_reuse},
    {"exit_before_barrier", exit_before_barrier},
    {"two_barriers", two_barriers},
    {"unequal_barriers", unequal_barriers},
    {"beyond_shared", beyond_shared},
    {"beyond_dynamic", beyond_dynamic},
    {"beyond_shared_pointer", beyond_shared_pointer},
    {"structure_race", structure_race},
    {"uninitialized_shared", uninitialized_shared},
#if !defined(__CUDACC__)
    {"large_shared", large_shared},
#endif
    {"mask_without_self", mask_without_self},
    {"mask_of_absent_lanes", mask_of_absent_lanes},
    {"lanes_at_different_shuffles", lanes_at_different_shuffles},
    {"shuffle_from_absent_lane", shuffle_from_absent_lane},
    {"mask_of_exited_lanes", mask_of_exited_lanes},
    {"warp_and_block_wait", warp_and_block_wait},
    {"no_warp_barrier", no_warp_barrier},
    {"shuffle_for_barrier", shuffle_for_barrier},
    {"beyond_allocation", beyond_allocation},
    {"null_pointer", null_pointer},
    {"copy", copy},
    {"misaligned_vector", misaligned_vector},
    {"misaligned_atomic", misaligned_atomic},
    {"lost_update", lost_update},
    {"unordered_blocks", unordered_blocks},
    {"waits_for_block", waits_for_block},
    {"ticket_with_fence", ticket_with_fence},
    {"ticket_without_fence", ticket_without_fence},
    {"deep_recursion", deep_recursion},
    {"trap", trap},
    {"warp_barriers", warp_barriers},
};

/// Launches of which all but the first are dependent. A wrong chain has its last kernel's name.
struct NamedChain {
  const char* name;
  std::vector<void (*)(FaultArguments)> kernels;
};

const NamedChain kChains[] = {
    {"read_before_wait", {fill, read_before_wait}},
    {"write_before_wait", {read_one, write_before_wait}},
    {"add_before_wait", {fill, add_before_wait}},
    {"read_beside_two", {fill, pass_on_at_once, read_beside_two}},
    // Correct:
    {"read_after_wait", {fill, read_after_wait}},
    {"pass_on_after_wait", {fill, pass_on_after_wait, read_before_wait}},
    {"pass_on_at_once", {fill, pass_on_at_once, read_after_wait}},
};

}  // namespace

cudaError_t launch_fault(const std::string& name, const FaultLaunch& launch,
                         const FaultArguments& arguments) {
  const cuda::LaunchConfig config{.grid = dim3(static_cast<unsigned>(launch.num_blocks)),
                                  .block = dim3(static_cast<unsigned>(launch.num_threads)),
                                  .shared_bytes = launch.shared_bytes,
                                  .stream = launch.stream};
  for (const NamedKernel& candidate : kKernels) {
    if (name == candidate.name) return SWITCHYARD_LAUNCH(candidate.kernel, config, arguments);
  }
  for (const NamedChain& chain : kChains) {
    if (name != chain.name) continue;
    cuda::LaunchConfig link = config;
    for (auto* const kernel : chain.kernels) {
      const cudaError_t error = SWITCHYARD_LAUNCH(kernel, link, arguments);
      if (error != cudaSuccess) return error;
      link.dependent = true;
    }
    return cudaSuccess;
  }
  return cudaErrorInvalidDeviceFunction;
}

}  // namespace switchyard::test

#include "tests/simt/cluster_kernels.h"

#include "cuda/intrinsics.cuh"

namespace switchyard::test {
namespace {

constexpr int kThreads = 64;

__device__ int thread_index() { return static_cast<int>(threadIdx.x); }
__device__ int global_index() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ unsigned next_rank() { return (cuda::cluster_rank() + 1) % cuda::cluster_size(); }

__device__ void cluster_barrier() {
  cuda::arrive_at_cluster();
  cuda::wait_for_cluster();
}

// The barrier.

__global__ void block_exits(FaultArguments args) {
  if (cuda::cluster_rank() == 1) return;
  cluster_barrier();
  args.out[global_index()] = 1;
}

__global__ void thread_exits(FaultArguments args) {
  if (global_index() == 5) return;
  cluster_barrier();
  args.out[global_index()] = 1;
}

__global__ void two_arrivals(FaultArguments args) {
  if (cuda::cluster_rank() == 1) {
    cuda::arrive_at_cluster();
  } else {
    cuda::arrive_at_cluster();
  }
  cuda::wait_for_cluster();
  args.out[global_index()] = 1;
}

__global__ void unequal_barriers_of_blocks(FaultArguments args) {
  const unsigned rounds = cuda::cluster_rank() == 1 ? 3 : 2;
  for (unsigned round = 0; round < rounds; ++round) cluster_barrier();
  args.out[global_index()] = 1;
}

__global__ void arrives_twice(FaultArguments args) {
  for (int i = 0; i < 2; ++i) cuda::arrive_at_cluster();
  args.out[global_index()] = 1;
}

__global__ void waits_without_arrival(FaultArguments args) {
  cuda::wait_for_cluster();
  args.out[global_index()] = 1;
}

__global__ void cluster_and_block_wait(FaultArguments args) {
  cuda::arrive_at_cluster();
  if (cuda::cluster_rank() == 1 && thread_index() == 0) __syncthreads();
  cuda::wait_for_cluster();
  args.out[global_index()] = 1;
  __syncthreads();
}

// Another block's shared memory.

__global__ void before_first_barrier(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  values[thread] = thread;
  args.out[global_index()] = cuda::shared_of_block(values, next_rank())[thread];
  cluster_barrier();
}

__global__ void after_end(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  values[thread] = thread;
  cluster_barrier();
  args.out[global_index()] = cuda::shared_of_block(values, next_rank())[thread];
}

__global__ void beyond_other(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  values[thread] = thread;
  cluster_barrier();
  cuda::shared_of_block(values, next_rank())[thread + 1] = thread;
  cluster_barrier();
  args.out[global_index()] = values[0];
}

__global__ void beyond_other_dynamic(FaultArguments args) {
  SWITCHYARD_DYNAMIC_SHARED(int, values);
  values[thread_index()] = thread_index();
  cluster_barrier();
  if (thread_index() == 0) cuda::shared_of_block(values + kThreads, next_rank())[0] = 1;
  cluster_barrier();
  args.out[global_index()] = values[0];
}

__global__ void no_such_rank(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  values[thread_index()] = 1;
  cluster_barrier();
  args.out[global_index()] = *cuda::shared_of_block(values, cuda::cluster_size());
  cluster_barrier();
}

__global__ void not_shared(FaultArguments args) {
  int value = thread_index();
  cluster_barrier();
  args.out[global_index()] = *cuda::shared_of_block(&value, next_rank());
  cluster_barrier();
}

// What nothing orders.

__global__ void writes_other_beside_owner(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  values[thread] = 0;
  cluster_barrier();
  cuda::shared_of_block(values, next_rank())[thread] = 1;
  __syncthreads();
  args.out[global_index()] = values[thread];
  cluster_barrier();
}

__global__ void writes_after_arrival(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  const int thread = thread_index();
  values[thread] = 0;
  cuda::arrive_at_cluster();
  values[thread] = 1;
  cuda::wait_for_cluster();
  args.out[global_index()] = cuda::shared_of_block(values, next_rank())[thread];
  cluster_barrier();
}

__global__ void reads_unwritten_other(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  if (cuda::cluster_rank() == 0) values[thread_index()] = 1;
  cluster_barrier();
  args.out[global_index()] = cuda::shared_of_block(values, next_rank())[thread_index()];
  cluster_barrier();
}

__global__ void device_memory_without_barrier(FaultArguments args) {
  const int other = global_index() ^ kThreads;
  args.out[global_index()] = 1;
  __syncthreads();
  args.out[global_index()] += args.out[other];
}

/// Clusters are as unordered as blocks.
__global__ void device_memory_of_another_cluster(FaultArguments args) {
  const auto threads = static_cast<int>(gridDim.x * blockDim.x);
  const auto step = static_cast<int>(cuda::cluster_size() * blockDim.x);
  args.out[global_index()] = 1;
  cluster_barrier();
  args.out[threads + global_index()] = args.out[(global_index() + step) % threads];
}

// Correct.

/// Blocks hand their values around through shared and through device memory.
__global__ void exchange(FaultArguments args) {
  SWITCHYARD_SHARED(int, values, [kThreads]);
  SWITCHYARD_DYNAMIC_SHARED(int, sums);
  const int thread = thread_index();
  const unsigned size = cuda::cluster_size();
  values[thread] = static_cast<int>(blockIdx.x);
  sums[thread] = 0;
  args.out[global_index()] = -1;
  cluster_barrier();
  for (unsigned rank = 0; rank < size; ++rank) {
    atomicAdd(&cuda::shared_of_block(sums, rank)[thread], 1 + values[thread]);
  }
  cuda::arrive_at_cluster();
  const unsigned other = blockIdx.x - cuda::cluster_rank() + next_rank();
  cuda::wait_for_cluster();
  args.out[other * blockDim.x + threadIdx.x] = sums[thread];
}

/// One block waits for what another does meanwhile.
__global__ void wait_for_other(FaultArguments args) {
  SWITCHYARD_SHARED(unsigned, flag);
  if (thread_index() == 0) flag = 0;
  cluster_barrier();
  if (cuda::cluster_rank() == 0) {
    while (atomicAdd(&flag, 0u) == 0) {
    }
  } else if (thread_index() == kThreads - 1) {
    atomicExch(cuda::shared_of_block(&flag, 0), 1u);
  }
  args.out[global_index()] = 1;
  cluster_barrier();
}

struct NamedKernel {
  const char* name;
  void (*kernel)(FaultArguments);
};

constexpr NamedKernel kKernels[] = {
    {"block_exits", block_exits},
    {"thread_exits", thread_exits},
    {"two_arrivals", two_arrivals},
    {"unequal_barriers_of_blocks", unequal_barriers_of_blocks},
    {"arrives_twice", arrives_twice},
    {"waits_without_arrival", waits_without_arrival},
    {"cluster_and_block_wait", cluster_and_block_wait},
    {"before_first_barrier", before_first_barrier},
    {"after_end", after_end},
    {"beyond_other", beyond_other},
    {"beyond_other_dynamic", beyond_other_dynamic},
    {"no_such_rank", no_such_rank},
    {"not_shared", not_shared},
    {"writes_other_beside_owner", writes_other_beside_owner},
    {"writes_after_arrival", writes_after_arrival},
    {"reads_unwritten_other", reads_unwritten_other},
    {"device_memory_without_barrier", device_memory_without_barrier},
    {"device_memory_of_another_cluster", device_memory_of_another_cluster},
    {"exchange", exchange},
    {"wait_for_other", wait_for_other},
};

cuda::LaunchConfig config_of(const ClusterLaunch& launch) {
  return {.grid = dim3(static_cast<unsigned>(launch.num_blocks)),
          .block = dim3(static_cast<unsigned>(launch.num_threads)),
          .shared_bytes = kThreads * static_cast<int64_t>(sizeof(int)),
          .cluster_blocks = static_cast<unsigned>(launch.cluster_blocks)};
}

}  // namespace

cudaError_t launch_cluster(const std::string& name, const ClusterLaunch& launch,
                           const FaultArguments& arguments) {
  for (const NamedKernel& candidate : kKernels) {
    if (name != candidate.name) continue;
    return SWITCHYARD_LAUNCH(candidate.kernel, config_of(launch), arguments);
  }
  return cudaErrorInvalidDeviceFunction;
}

cudaError_t allow_large_clusters(bool allowed) {
  return cudaFuncSetAttribute(exchange, cudaFuncAttributeNonPortableClusterSizeAllowed,
                              allowed ? 1 : 0);
}

cudaError_t count_clusters(const ClusterLaunch& launch, int* num_clusters) {
  const cuda::NativeLaunch native(config_of(launch));
  return cudaOccupancyMaxActiveClusters(num_clusters, exchange, &native.config());
}

}  // namespace switchyard::test

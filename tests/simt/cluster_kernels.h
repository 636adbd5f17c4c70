// Kernels whose blocks run in clusters: with one mistake each, and without any.
#pragma once

#include <string>

#include "tests/simt/fault_kernels.h"

namespace switchyard::test {

struct ClusterLaunch {
  int num_blocks = 4;
  int cluster_blocks = 2;
  int num_threads = 64;
};

/// Launches a kernel by its name; cudaErrorInvalidDeviceFunction when there is none.
cudaError_t launch_cluster(const std::string& name, const ClusterLaunch& launch,
                           const FaultArguments& arguments);

/// Lets the kernel named "exchange" have clusters of more than 8 blocks.
cudaError_t allow_large_clusters(bool allowed);

/// How many of its clusters fit on the device; 0 with an error where none does.
cudaError_t count_clusters(const ClusterLaunch& launch, int* num_clusters);

}  // namespace switchyard::test

// Kernels with one mistake each, and a few that only look as if they had one.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <string>

namespace switchyard::test {

/// What every one of these kernels gets; which parts it uses is its own affair.
struct FaultArguments {
  int* out = nullptr;
  const int* in = nullptr;
  unsigned* ticket = nullptr;
  int size = 0;
};

struct FaultLaunch {
  int num_blocks = 1;
  int num_threads = 64;
  int64_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
};

/// Launches a kernel by its name; cudaErrorInvalidDeviceFunction when there is none.
cudaError_t launch_fault(const std::string& name, const FaultLaunch& launch,
                         const FaultArguments& arguments);

}  // namespace switchyard::test

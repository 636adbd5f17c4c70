// In the place of vLLM's header of this name, which needs PyTorch's library and cuBLAS.
#pragma once

#include "stable_tensor.h"

inline cudaStream_t get_current_cuda_stream(int32_t /*device*/ = -1) {
  return torch::stable::context.stream;
}

inline cudaDeviceProp* get_device_prop() {
  static cudaDeviceProp properties = [] {
    cudaDeviceProp read{};
    STD_CUDA_CHECK(cudaGetDeviceProperties(&read, 0));
    return read;
  }();
  return &properties;
}

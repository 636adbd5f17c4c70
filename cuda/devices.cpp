#include "cuda/devices.h"

#ifdef SWITCHYARD_CUDA
#include <cuda_runtime_api.h>
#endif

namespace switchyard::cuda {

#ifdef SWITCHYARD_CUDA

std::string toolkit_version() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

std::vector<GpuInfo> list_gpus(std::string& note) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    note = std::string("no CUDA device: ") + cudaGetErrorString(status);
    return {};
  }
  std::vector<GpuInfo> gpus;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, index) != cudaSuccess) continue;
    gpus.push_back({index, properties.name, properties.major, properties.minor,
                    static_cast<int64_t>(properties.totalGlobalMem)});
  }
  return gpus;
}

#else

std::string toolkit_version() { return {}; }

std::vector<GpuInfo> list_gpus(std::string& note) {
  note = "built without CUDA";
  return {};
}

#endif

}  // namespace switchyard::cuda

// The device and its kernels: attributes, occupancy, launches.
#include <algorithm>
#include <cstdio>
#include <optional>

#include "tests/simt/block.h"
#include "tests/simt/device_memory.h"
#include "tests/simt/executor.h"
#include "tests/simt/runtime.h"

using switchyard::simt::Fault;
using switchyard::simt::FaultKind;
using switchyard::simt::kDefaultSharedBytes;
using switchyard::simt::kMaxSharedBytes;
using switchyard::simt::Runtime;
using switchyard::simt::runtime;
using switchyard::simt::settings;

namespace switchyard::simt {
namespace {

constexpr int kMaxThreadsPerBlock = 1024;
constexpr int kMaxThreadsPerMultiprocessor = 2048;
constexpr int kMaxBlocksPerMultiprocessor = 32;
constexpr int kReservedSharedBytes = 1024;
constexpr int kSharedBytesPerMultiprocessor = static_cast<int>(kMaxSharedBytes) + 1024;

bool has_device(int device) {
  return device >= 0 && device < std::min(settings().num_devices, kMaxDevices);
}

std::optional<int> attribute_value(cudaDeviceAttr attribute) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
      return kMaxThreadsPerBlock;
    case cudaDevAttrMaxBlockDimZ:
      return 64;
    case cudaDevAttrMaxGridDimX:
      return 0x7fffffff;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
      return 65535;
    case cudaDevAttrWarpSize:
      return 32;
    case cudaDevAttrMultiProcessorCount:
      return settings().num_multiprocessors;
    case cudaDevAttrComputeCapabilityMajor:
      return settings().compute_capability / 10;
    case cudaDevAttrComputeCapabilityMinor:
      return settings().compute_capability % 10;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return static_cast<int>(kDefaultSharedBytes);
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return static_cast<int>(kMaxSharedBytes);
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return kSharedBytesPerMultiprocessor;
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return kReservedSharedBytes;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return kMaxThreadsPerMultiprocessor;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return kMaxBlocksPerMultiprocessor;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return 65536;
    case cudaDevAttrL2CacheSize:
      return 50 << 20;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrStreamPrioritiesSupported:
      return 1;
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrIntegrated:
      return 0;
    default:
      return std::nullopt;
  }
}

cudaError_t refuse(cudaError_t error, const std::string& text) {
  runtime().explain(Fault(FaultKind::kBadLaunch, text));
  return Runtime::remember(error);
}

/// Blocks of a cluster that the device runs together and the kernel may ask for.
unsigned most_cluster_blocks(const void* kernel) {
  constexpr int kPortable = 8;
  const bool opted = runtime().large_cluster_kernels().contains(kernel);
  const int most = std::min(settings().max_cluster_blocks, kMaxClusterBlocks);
  return static_cast<unsigned>(opted ? most : std::min(most, kPortable));
}

cudaError_t take_cluster(dim3 cluster, dim3 grid, Launch& launch) {
  if (settings().compute_capability < 90) {
    return refuse(cudaErrorNotSupported, "clusters need compute capability 9.0");
  }
  if (cluster.y != 1 || cluster.z != 1) {
    return refuse(cudaErrorNotSupported, "clusters are executed along x only");
  }
  const unsigned most = most_cluster_blocks(launch.kernel);
  if (cluster.x < 1 || cluster.x > most || grid.x % cluster.x != 0) {
    return refuse(cudaErrorInvalidClusterSize,
                  "clusters of " + std::to_string(cluster.x) + " blocks in a grid of " +
                      std::to_string(grid.x) + "; they must divide it and have at most " +
                      std::to_string(most));
  }
  launch.cluster_blocks = cluster.x;
  return cudaSuccess;
}

/// Checks the attributes; `launch` learns from them.
cudaError_t take_attributes(const cudaLaunchConfig_t& config, Launch& launch) {
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttributeID id = config.attrs[i].id;
    const cudaLaunchAttributeValue& value = config.attrs[i].val;
    if (id == cudaLaunchAttributeCooperative) {
      return refuse(cudaErrorNotSupported, "cooperative grids cannot be executed");
    }
    if (id == cudaLaunchAttributeClusterDimension) {
      const dim3 cluster(value.clusterDim.x, value.clusterDim.y, value.clusterDim.z);
      const cudaError_t error = take_cluster(cluster, config.gridDim, launch);
      if (error != cudaSuccess) return error;
    }
    if (id != cudaLaunchAttributeProgrammaticStreamSerialization) continue;
    launch.dependent = value.programmaticStreamSerializationAllowed != 0;
    if (std::min(settings().compiled_for, settings().compute_capability) < 90) {
      return refuse(
          cudaErrorNotSupported,
          "a dependent launch needs compute capability 9.0, of the device and of the code");
    }
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t enqueue(const cudaLaunchConfig_t& config, Launch launch) {
  const auto guard = runtime().lock();
  if (settings().num_devices == 0) return Runtime::remember(cudaErrorNoDevice);
  launch.stream = config.stream;
  const cudaStream_t stream = runtime().stream(config.stream);
  if (stream != nullptr && stream->device != Runtime::device()) {
    return refuse(cudaErrorInvalidResourceHandle,
                  "a launch in a stream of device " + std::to_string(stream->device) +
                      " while device " + std::to_string(Runtime::device()) + " is current");
  }
  const cudaError_t error = take_attributes(config, launch);
  if (error != cudaSuccess) return error;
  const auto opted = runtime().dynamic_limits().find(launch.kernel);
  const size_t limit = opted == runtime().dynamic_limits().end()
                           ? kDefaultSharedBytes
                           : std::max(kDefaultSharedBytes, static_cast<size_t>(opted->second));
  if (launch.dynamic_shared_bytes > limit) {
    return refuse(cudaErrorInvalidValue,
                  "a launch with " + std::to_string(launch.dynamic_shared_bytes) +
                      " bytes of dynamic shared memory; the kernel is opted in to " +
                      std::to_string(limit));
  }
  try {
    check_launch(launch);
  } catch (const Fault& fault) {
    return refuse(cudaErrorInvalidConfiguration, fault.what());
  }
  return runtime().submit(config.stream, [launch = std::move(launch)] { execute(launch); });
}

}  // namespace switchyard::simt

// NOLINTBEGIN(readability-identifier-naming)
extern "C" {

cudaError_t CUDARTAPI cudaGetDeviceCount(int* count) {
  *count = settings().num_devices;
  return Runtime::remember(*count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t CUDARTAPI cudaGetDevice(int* device) {
  *device = Runtime::device();
  return Runtime::remember(settings().num_devices > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t CUDARTAPI cudaSetDevice(int device) {
  if (!switchyard::simt::has_device(device)) return Runtime::remember(cudaErrorInvalidDevice);
  Runtime::device() = device;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (!switchyard::simt::has_device(device)) return Runtime::remember(cudaErrorInvalidDevice);
  const std::optional<int> known = switchyard::simt::attribute_value(attribute);
  if (!known) return Runtime::remember(cudaErrorInvalidValue);
  *value = *known;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!switchyard::simt::has_device(device)) return Runtime::remember(cudaErrorInvalidDevice);
  *properties = cudaDeviceProp{};
  std::snprintf(properties->name, sizeof properties->name, "SIMT executor");
  properties->major = settings().compute_capability / 10;
  properties->minor = settings().compute_capability % 10;
  properties->multiProcessorCount = settings().num_multiprocessors;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = switchyard::simt::kMaxThreadsPerBlock;
  properties->maxThreadsPerMultiProcessor = switchyard::simt::kMaxThreadsPerMultiprocessor;
  properties->sharedMemPerBlock = kDefaultSharedBytes;
  properties->sharedMemPerBlockOptin = kMaxSharedBytes;
  properties->sharedMemPerMultiprocessor = switchyard::simt::kSharedBytesPerMultiprocessor;
  properties->totalGlobalMem = static_cast<size_t>(settings().device_memory_bytes);
  properties->unifiedAddressing = 1;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceReset() {
  switchyard::simt::reset();
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }

cudaError_t CUDARTAPI cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute,
                                           int value) {
  const auto guard = runtime().lock();
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute == cudaFuncAttributeNonPortableClusterSizeAllowed) {
    if (value != 0) {
      runtime().large_cluster_kernels().insert(kernel);
    } else {
      runtime().large_cluster_kernels().erase(kernel);
    }
    return cudaSuccess;
  }
  const bool fits = value >= 0 && static_cast<size_t>(value) <= kMaxSharedBytes;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || !fits) {
    return Runtime::remember(cudaErrorInvalidValue);
  }
  runtime().dynamic_limits()[kernel] = value;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  const auto guard = runtime().lock();
  *attributes = cudaFuncAttributes{};
  attributes->maxThreadsPerBlock = switchyard::simt::kMaxThreadsPerBlock;
  attributes->numRegs = 32;
  attributes->binaryVersion = settings().compute_capability;
  attributes->ptxVersion = std::min(settings().compiled_for, settings().compute_capability);
  const auto opted = runtime().dynamic_limits().find(kernel);
  attributes->maxDynamicSharedSizeBytes = opted == runtime().dynamic_limits().end()
                                              ? static_cast<int>(kDefaultSharedBytes)
                                              : opted->second;
  return cudaSuccess;
}

/// By threads and dynamic shared memory; static shared memory is known only once a kernel runs.
cudaError_t CUDARTAPI cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    int* num_blocks, const void*, int num_threads, size_t dynamic_shared_bytes, unsigned) {
  namespace simt = switchyard::simt;
  if (num_threads < 1 || num_threads > simt::kMaxThreadsPerBlock) {
    return Runtime::remember(cudaErrorInvalidValue);
  }
  const int warp_threads = (num_threads + 31) / 32 * 32;
  const size_t shared = dynamic_shared_bytes + simt::kReservedSharedBytes;
  *num_blocks = std::min({simt::kMaxBlocksPerMultiprocessor,
                          simt::kMaxThreadsPerMultiprocessor / warp_threads,
                          static_cast<int>(simt::kSharedBytesPerMultiprocessor / shared)});
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* num_blocks,
                                                                    const void* kernel,
                                                                    int num_threads,
                                                                    size_t dynamic_shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
      num_blocks, kernel, num_threads, dynamic_shared_bytes, cudaOccupancyDefault);
}

/// One where a launch like that is possible, 0 otherwise.
cudaError_t CUDARTAPI cudaOccupancyMaxActiveClusters(int* num_clusters, const void* kernel,
                                                     const cudaLaunchConfig_t* config) {
  const auto guard = runtime().lock();
  switchyard::simt::Launch launch;
  launch.kernel = kernel;
  const cudaError_t error = switchyard::simt::take_attributes(*config, launch);
  *num_clusters = error == cudaSuccess ? 1 : 0;
  return error;
}

/// Untyped arguments cannot be passed on to a host function, so kernels are launched by the typed
/// launch() alone.
cudaError_t CUDARTAPI cudaLaunchKernelExC(const cudaLaunchConfig_t*, const void*, void**) {
  const auto guard = runtime().lock();
  return switchyard::simt::refuse(cudaErrorNotSupported, "a launch without the launch macro");
}

cudaError_t CUDARTAPI cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) {
  return cudaLaunchKernelExC(nullptr, nullptr, nullptr);
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)

// Allocation and copies.
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "tests/simt/device_memory.h"
#include "tests/simt/executor.h"
#include "tests/simt/race_observer.h"
#include "tests/simt/runtime.h"

using switchyard::simt::device_memory;
using switchyard::simt::PinnedMemory;
using switchyard::simt::race_observer;
using switchyard::simt::Runtime;
using switchyard::simt::runtime;
using switchyard::simt::settings;

namespace {

cudaError_t allocate_device(void** address, size_t bytes) {
  if (address == nullptr) return Runtime::remember(cudaErrorInvalidValue);
  *address = nullptr;
  if (settings().num_devices == 0) return Runtime::remember(cudaErrorNoDevice);
  if (runtime().sticky_error() != cudaSuccess) return Runtime::remember(runtime().sticky_error());
  if (bytes == 0) return cudaSuccess;
  switchyard::simt::watch_invalid_accesses();
  *address = device_memory().allocate(bytes);
  return *address != nullptr ? cudaSuccess : Runtime::remember(cudaErrorMemoryAllocation);
}

cudaError_t allocate_pinned(void** address, size_t bytes, cudaMemoryType type) {
  if (address == nullptr) return Runtime::remember(cudaErrorInvalidValue);
  constexpr size_t kAlignment = 256;
  *address = std::aligned_alloc(kAlignment, (bytes + kAlignment) / kAlignment * kAlignment);
  if (*address == nullptr) return Runtime::remember(cudaErrorMemoryAllocation);
  runtime().pinned()[static_cast<const char*>(*address)] = {bytes, type};
  if (race_observer != nullptr) {
    race_observer->allocated(*address, bytes);
    race_observer->initialized(*address, bytes);
  }
  return cudaSuccess;
}

const std::pair<const char* const, PinnedMemory>* find_pinned(const void* address) {
  const auto* byte = static_cast<const char*>(address);
  const auto above = runtime().pinned().upper_bound(byte);
  if (above == runtime().pinned().begin()) return nullptr;
  const auto& found = *std::prev(above);
  return byte < found.first + found.second.bytes ? &found : nullptr;
}

/// Whether `kind` fits the addresses: what it calls device memory must be in an allocation, what it
/// calls the host's must not.
bool is_legal_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const auto fits = [&](const void* address, bool device) {
    if (device) return device_memory().holds(address, bytes) || find_pinned(address) != nullptr;
    return address != nullptr && !device_memory().is_in_range(address);
  };
  switch (kind) {
    case cudaMemcpyHostToHost:
      return fits(to, false) && fits(from, false);
    case cudaMemcpyHostToDevice:
      return fits(to, true) && fits(from, false);
    case cudaMemcpyDeviceToHost:
      return fits(to, false) && fits(from, true);
    case cudaMemcpyDeviceToDevice:
      return fits(to, true) && fits(from, true);
    case cudaMemcpyDefault:
      return (fits(to, true) || fits(to, false)) && (fits(from, true) || fits(from, false));
  }
  return false;
}

bool release_managed(void* address) {
  const auto found = runtime().pinned().find(static_cast<const char*>(address));
  if (found == runtime().pinned().end() || found->second.type != cudaMemoryTypeManaged) {
    return false;
  }
  runtime().pinned().erase(found);
  if (race_observer != nullptr) race_observer->freed(address);
  std::free(address);
  return true;
}

bool is_pageable(const void* address) {
  return !device_memory().is_in_range(address) && find_pinned(address) == nullptr;
}

void copy(void* to, const void* from, size_t bytes) {
  std::memmove(to, from, bytes);
  if (race_observer != nullptr) race_observer->initialized(to, bytes);
}

/// Memory that is not pinned is read before the call returns and written before it returns,
/// whatever the stream, as CUDA documents.
cudaError_t copy_in_stream(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                           cudaStream_t handle) {
  if (bytes == 0) return cudaSuccess;
  if (!is_legal_copy(to, from, bytes, kind)) return Runtime::remember(cudaErrorInvalidValue);
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) {
    return runtime().submit(handle, [=] { copy(to, from, bytes); });
  }
  if (is_pageable(from)) {
    const auto* first = static_cast<const char*>(from);
    auto staged = std::make_shared<std::vector<char>>(first, first + bytes);
    return runtime().submit(handle, [=] { copy(to, staged->data(), bytes); });
  }
  const cudaError_t error = runtime().submit(handle, [=] { copy(to, from, bytes); });
  if (error == cudaSuccess && is_pageable(to)) runtime().drain(stream);
  return error;
}

cudaError_t set_in_stream(void* address, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!device_memory().holds(address, bytes) && find_pinned(address) == nullptr) {
    return Runtime::remember(cudaErrorInvalidValue);
  }
  return runtime().submit(stream, [=] {
    std::memset(address, value, bytes);
    if (race_observer != nullptr) race_observer->initialized(address, bytes);
  });
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming)
extern "C" {

cudaError_t CUDARTAPI cudaMalloc(void** address, size_t bytes) {
  const auto guard = runtime().lock();
  const cudaError_t error = runtime().refuse_while_capturing();
  return error != cudaSuccess ? error : allocate_device(address, bytes);
}

cudaError_t CUDARTAPI cudaFree(void* address) {
  const auto guard = runtime().lock();
  const cudaError_t error = runtime().refuse_while_capturing();
  if (error != cudaSuccess) return error;
  runtime().drain_all();
  const bool known =
      address == nullptr || device_memory().release(address) || release_managed(address);
  return Runtime::remember(known ? runtime().sticky_error() : cudaErrorInvalidValue);
}

/// Graphs cannot hold allocations here.
cudaError_t CUDARTAPI cudaMallocAsync(void** address, size_t bytes, cudaStream_t handle) {
  const auto guard = runtime().lock();
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  if (stream->capture != nullptr) return Runtime::remember(cudaErrorNotSupported);
  return allocate_device(address, bytes);
}

cudaError_t CUDARTAPI cudaFreeAsync(void* address, cudaStream_t handle) {
  const auto guard = runtime().lock();
  if (address == nullptr) return cudaSuccess;
  if (!device_memory().holds(address, 0)) return Runtime::remember(cudaErrorInvalidValue);
  return runtime().submit(handle, [address] { device_memory().release(address); });
}

cudaError_t CUDARTAPI cudaHostAlloc(void** address, size_t bytes, unsigned) {
  const auto guard = runtime().lock();
  const cudaError_t error = runtime().refuse_while_capturing();
  return error != cudaSuccess ? error : allocate_pinned(address, bytes, cudaMemoryTypeHost);
}

cudaError_t CUDARTAPI cudaMallocHost(void** address, size_t bytes) {
  return cudaHostAlloc(address, bytes, cudaHostAllocDefault);
}

cudaError_t CUDARTAPI cudaMallocManaged(void** address, size_t bytes, unsigned) {
  const auto guard = runtime().lock();
  const cudaError_t error = runtime().refuse_while_capturing();
  return error != cudaSuccess ? error : allocate_pinned(address, bytes, cudaMemoryTypeManaged);
}

cudaError_t CUDARTAPI cudaFreeHost(void* address) {
  const auto guard = runtime().lock();
  if (address == nullptr) return cudaSuccess;
  const cudaError_t error = runtime().refuse_while_capturing();
  if (error != cudaSuccess) return error;
  runtime().drain_all();
  if (runtime().pinned().erase(static_cast<const char*>(address)) == 0) {
    return Runtime::remember(cudaErrorInvalidValue);
  }
  if (race_observer != nullptr) race_observer->freed(address);
  std::free(address);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  const auto guard = runtime().lock();
  if (find_pinned(host) == nullptr) return Runtime::remember(cudaErrorInvalidValue);
  *device = host;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const auto guard = runtime().lock();
  const cudaError_t error = runtime().refuse_while_capturing();
  if (error != cudaSuccess) return error;
  const cudaError_t copied = copy_in_stream(to, from, bytes, kind, nullptr);
  if (copied == cudaSuccess && !runtime().default_stream()->steps.empty()) runtime().drain_all();
  return copied;
}

cudaError_t CUDARTAPI cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                      cudaStream_t stream) {
  const auto guard = runtime().lock();
  return copy_in_stream(to, from, bytes, kind, stream);
}

cudaError_t CUDARTAPI cudaMemset(void* address, int value, size_t bytes) {
  const auto guard = runtime().lock();
  const cudaError_t error = runtime().refuse_while_capturing();
  return error != cudaSuccess ? error : set_in_stream(address, value, bytes, nullptr);
}

cudaError_t CUDARTAPI cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t stream) {
  const auto guard = runtime().lock();
  return set_in_stream(address, value, bytes, stream);
}

cudaError_t CUDARTAPI cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  const auto guard = runtime().lock();
  *total_bytes = static_cast<size_t>(settings().device_memory_bytes);
  *free_bytes = *total_bytes - static_cast<size_t>(device_memory().bytes_in_use());
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                               const void* address) {
  const auto guard = runtime().lock();
  *attributes = cudaPointerAttributes{};
  attributes->device = Runtime::device();
  void* pointer = const_cast<void*>(address);
  if (device_memory().holds(address, 1)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->devicePointer = pointer;
  } else if (const auto* pinned = find_pinned(address)) {
    attributes->type = pinned->second.type;
    attributes->devicePointer = pointer;
    attributes->hostPointer = pointer;
  } else {
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = cudaInvalidDeviceId;
    attributes->hostPointer = pointer;
  }
  return cudaSuccess;
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)

#include "cuda/device_state.h"

#include <string>

#include "switchyard/errors.h"

namespace switchyard::cuda {
namespace {

/// Errors after which every call on the device fails until the process ends.
bool is_sticky(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::string text_of(cudaError_t status) {
  return std::string(cudaGetErrorName(status)) + " (" + cudaGetErrorString(status) + ")";
}

DeviceState::DeviceState() {
  int count = 0;
  cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess && count > 0) status = cudaGetDevice(&device_);
  if (status != cudaSuccess || count == 0) {
    throw Unavailable("no CUDA device" +
                      (status == cudaSuccess ? std::string() : ": " + text_of(status)));
  }
  num_multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount);
  // Code for older devices does not wait for the grid before it, whatever device runs it.
  chains_launches_ = attribute(cudaDevAttrComputeCapabilityMajor) >= 9 && code_capability() >= 90;
  reads_pageable_memory_ = attribute(cudaDevAttrPageableMemoryAccess) != 0;
}

int DeviceState::attribute(cudaDeviceAttr attribute) const {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, attribute, device_), "cudaDeviceGetAttribute");
  return value;
}

void DeviceState::check_usable(StreamView stream) const {
  if (!usable_.load(std::memory_order_relaxed)) {
    throw CudaError("device " + std::to_string(device_) +
                    " met an error that cannot be undone; this object is no longer usable");
  }
  int current = device_;
  check(cudaGetDevice(&current), "cudaGetDevice");
  int stream_device = current;
  if (stream.get() != nullptr) {
    check(cudaStreamGetDevice(stream.get(), &stream_device), "cudaStreamGetDevice");
  }
  if (stream_device != device_) {
    throw InvalidArgument("stream belongs to device " + std::to_string(stream_device) +
                          ", must belong to device " + std::to_string(device_));
  }
  // CUDA launches nothing in a stream whose device is not the current one.
  if (current != device_) {
    throw InvalidArgument("stream belongs to device " + std::to_string(device_) + ", but device " +
                          std::to_string(current) + " is current");
  }
}

void DeviceState::check_memory(const char* name, const void* pointer, std::size_t alignment) const {
  if (pointer == nullptr) return;
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) {
    throw InvalidArgument(std::string(name) + " is not aligned to " + std::to_string(alignment) +
                          " bytes");
  }
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, pointer), "cudaPointerGetAttributes");
  const bool on_host = attributes.type == cudaMemoryTypeUnregistered;
  if (on_host && !reads_pageable_memory_) {
    throw InvalidArgument(std::string(name) + " is host memory, must be memory of device " +
                          std::to_string(device_));
  }
  if (attributes.type == cudaMemoryTypeDevice && attributes.device != device_) {
    throw InvalidArgument(std::string(name) + " is memory of device " +
                          std::to_string(attributes.device) + ", must be memory of device " +
                          std::to_string(device_));
  }
}

void DeviceState::check(cudaError_t status, const char* call) const {
  if (status == cudaSuccess) return;
  const bool sticky = is_sticky(status);
  if (sticky) usable_.store(false, std::memory_order_relaxed);
  throw CudaError(std::string(call) + ": " + text_of(status) +
                  (sticky ? "; the device cannot be used any more" : ""));
}

}  // namespace switchyard::cuda

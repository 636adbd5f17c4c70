// What every object of the CUDA backend knows of its device: whose memory its kernels may follow,
// and whether the device still works.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "switchyard/data_type.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard::cuda {

/// An error's name and text.
std::string text_of(cudaError_t status);

/// The compute capability, 10 * major + minor, that the kernels' code on the current device was
/// compiled for. Less than the device's where that code is translated from an older one's.
int code_capability();

/// The device that was current when it was made. Its checks run on the host before any launch.
class DeviceState {
 public:
  /// @throws Unavailable  saying "no CUDA device" where there is none or no driver.
  DeviceState();

  [[nodiscard]] int device() const { return device_; }
  /// @throws CudaError  when it cannot be asked.
  [[nodiscard]] int attribute(cudaDeviceAttr attribute) const;
  [[nodiscard]] int num_multiprocessors() const { return num_multiprocessors_; }
  /// Whether launches may be `dependent`: from compute capability 9.0 on, of device and code.
  [[nodiscard]] bool chains_launches() const { return chains_launches_; }

  /// @throws InvalidArgument  when the stream belongs to another device, or another device is
  ///                          current.
  /// @throws CudaError        when an earlier call left the device unusable.
  void check_usable(StreamView stream) const;

  /// A null pointer passes: what may be left out is the front door's business.
  /// @throws InvalidArgument  naming the argument when kernels here cannot follow `pointer`, or
  /// when
  ///                          it is not a multiple of `alignment`.
  void check_memory(const char* name, const void* pointer, std::size_t alignment) const;

  /// @throws CudaError  with the call and CUDA's text. Where the error is sticky, the object says
  ///                    so now and refuses every later use.
  void check(cudaError_t status, const char* call) const;

 private:
  int device_ = 0;
  int num_multiprocessors_ = 0;
  bool chains_launches_ = false;
  bool reads_pageable_memory_ = false;
  mutable std::atomic<bool> usable_{true};
};

// DeviceState::check_memory() for views, whose memory is looked at only where they have elements,
// as in the front doors.

template <typename T>
void check_vector(const DeviceState& device, const char* name, VectorView<T> view) {
  device.check_memory(name, view.empty() ? nullptr : view.data, alignof(T));
}

template <typename View>
void check_matrix(const DeviceState& device, const char* name, const View& view,
                  std::size_t alignment) {
  device.check_memory(name, view.rows == 0 || view.cols == 0 ? nullptr : view.data, alignment);
}

inline void check_tensor(const DeviceState& device, const char* name, const ConstTensorView& view) {
  check_matrix(device, name, view, static_cast<std::size_t>(size_of(view.dtype)));
}

}  // namespace switchyard::cuda

// Copies of host memory on the device, for tests that hand host memory to a backend that cannot
// follow it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "switchyard/data_type.h"
#include "switchyard/tensor_view.h"
#include "tests/simt/device_array.h"

namespace switchyard::test {

/// Lives as long as one call. A copy lies as far from a 16-byte boundary as what it is a copy of,
/// and ends where that ends, so that an access behind it shows.
class DeviceCopies {
 public:
  template <typename T>
  T* copy(T* host, int64_t count) {
    if (host == nullptr || count == 0) return nullptr;
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    const size_t offset = reinterpret_cast<uintptr_t>(host) % 16;
    copies_.push_back(std::make_unique<DeviceArray<std::byte>>(offset + bytes));
    std::byte* const device = copies_.back()->data() + offset;
    require_success(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice));
    if constexpr (!std::is_const_v<T>) outputs_.push_back({host, device, bytes});
    return reinterpret_cast<T*>(device);
  }

  template <typename T>
  VectorView<T> copy(VectorView<T> view) {
    return {copy(view.data, view.size), view.size};
  }

  template <typename T>
  MatrixView<T> copy(MatrixView<T> view) {
    return {copy(view.data, elements(view)), view.rows, view.cols, view.row_stride};
  }

  ConstTensorView copy(const ConstTensorView& view) {
    const auto* bytes = static_cast<const std::byte*>(view.data);
    return {copy(bytes, elements(view) * size_of(view.dtype)), view.dtype, view.rows, view.cols,
            view.row_stride};
  }

  TensorView copy(const TensorView& view) {
    auto* bytes = static_cast<std::byte*>(view.data);
    return {copy(bytes, elements(view) * size_of(view.dtype)), view.dtype, view.rows, view.cols,
            view.row_stride};
  }

  /// Copies what is not const back to the host.
  void bring_back() const {
    for (const Output& output : outputs_) {
      require_success(cudaMemcpy(output.host, output.device, output.bytes, cudaMemcpyDeviceToHost));
    }
  }

 private:
  struct Output {
    void* host;
    const void* device;
    size_t bytes;
  };

  template <typename View>
  static int64_t elements(const View& view) {
    if (view.rows == 0 || view.cols == 0) return 0;
    return (view.rows - 1) * view.row_stride + view.cols;
  }

  std::vector<std::unique_ptr<DeviceArray<std::byte>>> copies_;
  std::vector<Output> outputs_;
};

}  // namespace switchyard::test

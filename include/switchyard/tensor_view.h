// Non-owning views of caller-owned memory, host or device.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define SWITCHYARD_HOST_DEVICE __host__ __device__
#else
#define SWITCHYARD_HOST_DEVICE
#endif

namespace switchyard {

/// `size` contiguous elements. A default-constructed view means "not given".
template <typename T>
struct VectorView {
  T* data = nullptr;
  int64_t size = 0;

  constexpr VectorView() = default;
  SWITCHYARD_HOST_DEVICE constexpr VectorView(T* pointer, int64_t count)
      : data(pointer), size(count) {}

  [[nodiscard]] SWITCHYARD_HOST_DEVICE constexpr bool empty() const { return size == 0; }
  SWITCHYARD_HOST_DEVICE constexpr T& operator[](int64_t i) const { return data[i]; }
  SWITCHYARD_HOST_DEVICE constexpr operator VectorView<const T>() const { return {data, size}; }
};

/// Row-major [rows, cols]; consecutive rows start `row_stride` elements apart.
template <typename T>
struct MatrixView {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;

  constexpr MatrixView() = default;
  /// Dense: the row stride is `num_cols`.
  SWITCHYARD_HOST_DEVICE constexpr MatrixView(T* pointer, int64_t num_rows, int64_t num_cols)
      : MatrixView(pointer, num_rows, num_cols, num_cols) {}
  /// `stride` is in elements and at least `num_cols`; whoever takes the view checks it.
  SWITCHYARD_HOST_DEVICE constexpr MatrixView(T* pointer, int64_t num_rows, int64_t num_cols,
                                              int64_t stride)
      : data(pointer), rows(num_rows), cols(num_cols), row_stride(stride) {}

  SWITCHYARD_HOST_DEVICE constexpr T* row(int64_t i) const { return data + i * row_stride; }
  SWITCHYARD_HOST_DEVICE constexpr operator MatrixView<const T>() const {
    return {data, rows, cols, row_stride};
  }
};

}  // namespace switchyard

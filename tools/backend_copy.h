// What a trace holds, in memory that the backend can use.
#pragma once

#include <algorithm>

#include "switchyard/backend.h"
#include "switchyard/buffer.h"
#include "switchyard/data_type.h"
#include "switchyard/tensor_view.h"

namespace switchyard::tools {

/// A matrix of the host's: itself for a host backend, else a dense copy.
template <typename T>
class BackendCopy {
 public:
  BackendCopy(MatrixView<const T> matrix, Backend backend) : view_(matrix) {
    if (backend != Backend::kCuda || matrix.data == nullptr) return;
    copy_ = Buffer<T>(matrix.rows * matrix.cols, backend);
    for (int64_t row = 0; row < matrix.rows; ++row) {
      std::copy_n(matrix.row(row), matrix.cols, copy_.data() + row * matrix.cols);
    }
    view_ = copy_.matrix(matrix.rows, matrix.cols);
  }
  BackendCopy(VectorView<const T> vector, Backend backend)
      : BackendCopy(MatrixView<const T>(vector.data, 1, vector.size), backend) {}

  [[nodiscard]] MatrixView<const T> matrix() const { return view_; }
  [[nodiscard]] VectorView<const T> vector() const { return {view_.data, view_.cols}; }

 private:
  MatrixView<const T> view_;
  Buffer<T> copy_;
};

/// The same for logits.
class BackendTensor {
 public:
  BackendTensor(const ConstTensorView& tensor, Backend backend)
      : dtype_(tensor.dtype),
        bytes_(MatrixView<const std::byte>(static_cast<const std::byte*>(tensor.data), tensor.rows,
                                           tensor.cols * size_of(tensor.dtype),
                                           tensor.row_stride * size_of(tensor.dtype)),
               backend) {}

  [[nodiscard]] ConstTensorView view() const {
    const MatrixView<const std::byte> bytes = bytes_.matrix();
    return {bytes.data, dtype_, bytes.rows, bytes.cols / size_of(dtype_),
            bytes.row_stride / size_of(dtype_)};
  }

 private:
  DataType dtype_;
  BackendCopy<std::byte> bytes_;
};

}  // namespace switchyard::tools

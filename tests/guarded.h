// Output memory with guard words around it and between its rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "switchyard/tensor_view.h"
#include "tests/backend_memory.h"

namespace switchyard::test {

/// A row-major matrix whose every byte, inside and outside, starts as a pattern. What lies before
/// the first row, between the rows and behind the last one must keep it.
template <typename T>
class Guarded {
 public:
  static constexpr int64_t kGuard = 64;  ///< elements before and after

  Guarded() : Guarded(0, 0, 0) {}
  Guarded(int64_t rows, int64_t cols, int64_t stride)
      : rows_(rows),
        cols_(cols),
        stride_(stride),
        memory_(static_cast<size_t>(2 * kGuard + rows * stride)) {
    std::memset(static_cast<void*>(memory_.data()), kPattern, memory_.size() * sizeof(T));
  }

  [[nodiscard]] MatrixView<T> matrix() { return {first(), rows_, cols_, stride_}; }
  [[nodiscard]] VectorView<T> vector() { return {first(), rows_ * cols_}; }

  /// The elements without padding.
  [[nodiscard]] std::vector<T> dense() const {
    std::vector<T> out;
    out.reserve(static_cast<size_t>(rows_ * cols_));
    for (int64_t row = 0; row < rows_; ++row) {
      const auto begin = memory_.begin() + kGuard + row * stride_;
      out.insert(out.end(), begin, begin + cols_);
    }
    return out;
  }

  /// Whether no element outside the matrix was written to.
  [[nodiscard]] bool intact() const {
    for (int64_t i = 0; i < static_cast<int64_t>(memory_.size()); ++i) {
      const int64_t offset = i - kGuard;
      const bool inside = offset >= 0 && offset < rows_ * stride_ && offset % stride_ < cols_;
      if (!inside && !has_pattern(i)) return false;
    }
    return true;
  }

  /// Whether nothing at all was written, inside or outside.
  [[nodiscard]] bool untouched() const {
    for (int64_t i = 0; i < static_cast<int64_t>(memory_.size()); ++i) {
      if (!has_pattern(i)) return false;
    }
    return true;
  }

 private:
  static constexpr int kPattern = 0xa5;

  T* first() { return memory_.data() + kGuard; }

  [[nodiscard]] bool has_pattern(int64_t i) const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(&memory_[static_cast<size_t>(i)]);
    return std::all_of(bytes, bytes + sizeof(T),
                       [](unsigned char byte) { return byte == kPattern; });
  }

  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  BackendVector<T> memory_;
};

}  // namespace switchyard::test

// Checks of a call's views, shared by the front doors.
#pragma once

#include "cpu/refuse.h"
#include "switchyard/tensor_view.h"

namespace switchyard::cpu {

/// Of a batch. Keeps every product of tokens, slots and bytes far inside int64.
inline constexpr int64_t kMaxTokens = int64_t{1} << 48;

inline void check_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    refuse(name, " is ", value, ", must be in [", low, ", ", high, "]");
  }
}

/// `view` is any matrix view. Its memory is looked at only where it has elements.
template <typename View>
void check_matrix(const char* name, const View& view, int64_t rows, int64_t cols) {
  if (view.rows < 0) refuse(name, " has ", view.rows, " rows, must have 0 or more");
  if (view.rows != rows) refuse(name, " has ", view.rows, " rows, must have ", rows);
  if (view.cols != cols) refuse(name, " has ", view.cols, " columns, must have ", cols);
  if (view.row_stride < view.cols) {
    refuse(name, " has row_stride ", view.row_stride, ", must be at least its ", view.cols,
           " columns");
  }
  if (view.data == nullptr && rows > 0 && cols > 0) refuse(name, " is a null pointer");
}

template <typename T>
void check_vector(const char* name, VectorView<T> view, int64_t size) {
  if (view.size != size) refuse(name, " has ", view.size, " elements, must have ", size);
  if (view.data == nullptr && size > 0) refuse(name, " is a null pointer");
}

/// An empty view means "not given".
template <typename T>
void check_optional_vector(const char* name, VectorView<T> view, int64_t size) {
  if (!view.empty()) check_vector(name, view, size);
}

}  // namespace switchyard::cpu

// Where the row of an assignment lies: among the sorted ones, or at an address of its own.
// Permuting and combining are written once for both.
#pragma once

#include "switchyard/tensor_view.h"

namespace switchyard::cpu {

/// Byte is const where rows are read.
template <typename Byte>
struct SortedRows {
  MatrixView<const int64_t> assignment_to_row;
  MatrixView<Byte> sorted;  ///< the stride in bytes

  [[nodiscard]] int64_t top_k() const { return assignment_to_row.cols; }
  /// Null where the assignment has none.
  [[nodiscard]] Byte* of(int64_t token, int64_t slot) const {
    const int64_t row = assignment_to_row.row(token)[slot];
    return row < 0 ? nullptr : sorted.row(row);
  }
};

template <typename Byte>
struct AddressedRows {
  MatrixView<Byte* const> addresses;

  [[nodiscard]] int64_t top_k() const { return addresses.cols; }
  [[nodiscard]] Byte* of(int64_t token, int64_t slot) const { return addresses.row(token)[slot]; }
};

}  // namespace switchyard::cpu

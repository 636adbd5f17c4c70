// Element types of logits, weights and rows: storage for the 16-bit ones, and views whose
// element type is known only at run time.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "switchyard/tensor_view.h"

namespace switchyard {

enum class DataType : uint8_t { kFloat32, kFloat16, kBFloat16 };

/// IEEE 754 binary16, as stored.
struct Float16 {
  uint16_t bits = 0;
};

/// The upper half of an IEEE 754 binary32, as stored.
struct BFloat16 {
  uint16_t bits = 0;
};

constexpr int64_t size_of(DataType type) { return type == DataType::kFloat32 ? 4 : 2; }

/// "F32", "F16" or "BF16", the names that safetensors uses.
constexpr const char* name_of(DataType type) {
  switch (type) {
    case DataType::kFloat32:
      return "F32";
    case DataType::kFloat16:
      return "F16";
    case DataType::kBFloat16:
      return "BF16";
  }
  return "?";
}

/// Exact.
SWITCHYARD_HOST_DEVICE inline float widen(float value) { return value; }

/// Exact.
SWITCHYARD_HOST_DEVICE inline float widen(BFloat16 value) {
  return std::bit_cast<float>(uint32_t{value.bits} << 16);
}

/// Exact, subnormals included.
SWITCHYARD_HOST_DEVICE inline float widen(Float16 value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | (magnitude << 13));
  // Read as a float32 with float16's fields the value is 2^112 times too small.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(scaled));
}

/// Rounds to nearest, ties to even; NaN stays NaN.
SWITCHYARD_HOST_DEVICE inline BFloat16 to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// Rounds to nearest, ties to even, subnormals included; NaN stays NaN.
SWITCHYARD_HOST_DEVICE inline Float16 to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to inf
  if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 lets the adder round at float16's smallest step, 2^-24.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

template <typename T>
struct DataTypeOf;
template <>
struct DataTypeOf<float> {
  static constexpr DataType value = DataType::kFloat32;
};
template <>
struct DataTypeOf<Float16> {
  static constexpr DataType value = DataType::kFloat16;
};
template <>
struct DataTypeOf<BFloat16> {
  static constexpr DataType value = DataType::kBFloat16;
};

/// A matrix of float32, float16 or bfloat16, read only. Converts from a typed `MatrixView`.
struct ConstTensorView {
  const void* data = nullptr;
  DataType dtype = DataType::kFloat32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  ///< in elements

  constexpr ConstTensorView() = default;
  constexpr ConstTensorView(const void* pointer, DataType type, int64_t num_rows, int64_t num_cols,
                            int64_t stride)
      : data(pointer), dtype(type), rows(num_rows), cols(num_cols), row_stride(stride) {}
  template <typename T>
  constexpr ConstTensorView(MatrixView<const T> view)
      : ConstTensorView(view.data, DataTypeOf<T>::value, view.rows, view.cols, view.row_stride) {}
  template <typename T>
  constexpr ConstTensorView(MatrixView<T> view) : ConstTensorView(MatrixView<const T>(view)) {}

  /// The caller has checked `dtype`.
  template <typename T>
  [[nodiscard]] constexpr MatrixView<const T> as() const {
    return {static_cast<const T*>(data), rows, cols, row_stride};
  }
};

/// A matrix of float32, float16 or bfloat16 to write to. Converts from a typed `MatrixView`.
struct TensorView {
  void* data = nullptr;
  DataType dtype = DataType::kFloat32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  ///< in elements

  constexpr TensorView() = default;
  constexpr TensorView(void* pointer, DataType type, int64_t num_rows, int64_t num_cols,
                       int64_t stride)
      : data(pointer), dtype(type), rows(num_rows), cols(num_cols), row_stride(stride) {}
  template <typename T>
  constexpr TensorView(MatrixView<T> view)
      : TensorView(view.data, DataTypeOf<T>::value, view.rows, view.cols, view.row_stride) {}

  constexpr operator ConstTensorView() const { return {data, dtype, rows, cols, row_stride}; }

  /// The caller has checked `dtype`.
  template <typename T>
  [[nodiscard]] constexpr MatrixView<T> as() const {
    return {static_cast<T*>(data), rows, cols, row_stride};
  }
};

/// One element, widened. The caller has checked `dtype`.
SWITCHYARD_HOST_DEVICE inline float element_at(const ConstTensorView& tensor, int64_t row,
                                               int64_t col) {
  switch (tensor.dtype) {
    case DataType::kFloat32:
      return tensor.as<float>().row(row)[col];
    case DataType::kFloat16:
      return widen(tensor.as<Float16>().row(row)[col]);
    case DataType::kBFloat16:
      return widen(tensor.as<BFloat16>().row(row)[col]);
  }
  return 0.0f;
}

/// Writes one element, rounded to nearest even. The caller has checked `dtype`.
SWITCHYARD_HOST_DEVICE inline void set_element(const TensorView& tensor, int64_t row, int64_t col,
                                               float value) {
  switch (tensor.dtype) {
    case DataType::kFloat32:
      tensor.as<float>().row(row)[col] = value;
      break;
    case DataType::kFloat16:
      tensor.as<Float16>().row(row)[col] = to_float16(value);
      break;
    case DataType::kBFloat16:
      tensor.as<BFloat16>().row(row)[col] = to_bfloat16(value);
      break;
  }
}

}  // namespace switchyard

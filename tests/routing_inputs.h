// Router logits to test with: ordinary, awkward and hostile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "switchyard/data_type.h"
#include "tests/backend_memory.h"

namespace switchyard::test {

enum class Distribution : uint8_t {
  kNormal,           ///< N(0, 1.5), what a router emits
  kWideNormal,       ///< N(0, 50): most exponentials vanish
  kHeavyTies,        ///< a handful of distinct values
  kAllEqual,         ///< one value a row
  kDenormal,         ///< subnormal numbers of both signs
  kAllNaN,           ///< nothing to choose from
  kNaNRuns,          ///< runs of NaNs of one sign among ordinary values
  kMixedSpecial,     ///< NaN, infinities and signed zeros among ordinary values
  kShortRows,        ///< a few finite values a row, at times none
  kHuge,             ///< around +-FLT_MAX, where differences overflow
  kBFloat16Rounded,  ///< values that 16-bit routers emit, with their many ties
  kNearTies,         ///< in half of the rows, values that differ in their last bits
  kAscending,
  kDescending,
  kOneHot,
  kRandomBits,  ///< any bit pattern
};

inline constexpr Distribution kAllDistributions[] = {
    Distribution::kNormal,    Distribution::kWideNormal,      Distribution::kHeavyTies,
    Distribution::kAllEqual,  Distribution::kDenormal,        Distribution::kAllNaN,
    Distribution::kNaNRuns,   Distribution::kMixedSpecial,    Distribution::kShortRows,
    Distribution::kHuge,      Distribution::kBFloat16Rounded, Distribution::kNearTies,
    Distribution::kAscending, Distribution::kDescending,      Distribution::kOneHot,
    Distribution::kRandomBits};
inline constexpr DataType kAllDataTypes[] = {DataType::kFloat32, DataType::kFloat16,
                                             DataType::kBFloat16};

const char* name_of(Distribution distribution);

/// A matrix of logits. Between its rows lie large finite values, which would win if they were read;
/// behind its last element lies nothing, so that a sanitizer sees a read there.
class Logits {
 public:
  Logits(Distribution distribution, DataType dtype, int64_t rows, int64_t cols, int64_t row_stride,
         uint64_t seed);
  /// `values` row by row, rounded to `dtype`.
  Logits(const std::vector<float>& values, DataType dtype, int64_t rows, int64_t cols,
         int64_t row_stride);

  [[nodiscard]] ConstTensorView view() const;
  /// One row, widened.
  [[nodiscard]] std::vector<float> row(int64_t index) const;
  /// All rows, widened, nothing between them.
  [[nodiscard]] std::vector<float> dense() const;

 private:
  void allocate();
  void set(int64_t row, int64_t col, float value);
  void set_bits(int64_t row, int64_t col, uint32_t bits);

  DataType dtype_;
  int64_t rows_;
  int64_t cols_;
  int64_t row_stride_;
  BackendVector<std::byte> memory_;
};

}  // namespace switchyard::test

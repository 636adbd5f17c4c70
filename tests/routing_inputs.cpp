#include "tests/routing_inputs.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

float normal(RandomStream& random, double deviation) {
  return static_cast<float>(deviation * random.normal());
}

float denormal(RandomStream& random, DataType dtype) {
  // float16's subnormals are normal float32 numbers; the other two share their exponent.
  if (dtype == DataType::kFloat16) {
    return static_cast<float>(random.below(2047) - 1023) * 0x1p-24f;
  }
  return std::bit_cast<float>(random.bits32() & 0x807fffffu);
}

float special(RandomStream& random) {
  constexpr float kSpecials[] = {kNaN, -kNaN, kInfinity, -kInfinity, 0.0f, -0.0f};
  return random.chance(50) ? random.pick(kSpecials) : normal(random, 1.5);
}

float huge(RandomStream& random) {
  constexpr float kHuge[] = {FLT_MAX,        -FLT_MAX,  0x1.fffffcp127f, -0x1.fffffcp127f,
                             0x1p127f,       -0x1p127f, 0x1p103f,        -0x1p103f,
                             FLT_MAX / 3.0f, 1.0f,      -1.0f,           65504.0f};
  return random.pick(kHuge);
}

float near_tie(RandomStream& random) {
  const float value = std::round(normal(random, 1.5) * 16.0f) / 16.0f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | (random.bits32() & 3u));
}

/// The value at one place of a row. `row_value` is one draw for the whole row.
float draw(Distribution distribution, DataType dtype, RandomStream& random, int64_t col,
           int64_t cols, float row_value) {
  switch (distribution) {
    case Distribution::kNormal:
      return normal(random, 1.5);
    case Distribution::kWideNormal:
      return normal(random, 50.0);
    case Distribution::kHeavyTies:
      return std::round(normal(random, 1.5));
    case Distribution::kAllEqual:
      return row_value;
    case Distribution::kDenormal:
      return denormal(random, dtype);
    case Distribution::kAllNaN:
      return random.chance(50) ? kNaN : -kNaN;
    case Distribution::kNaNRuns: {
      const bool in_run = (col / 8 + std::lround(std::fabs(row_value) * 1000.0f)) % 2 == 0;
      return in_run ? std::copysign(kNaN, row_value) : normal(random, 1.5);
    }
    case Distribution::kMixedSpecial:
      return special(random);
    case Distribution::kShortRows:
      return random.chance(30) ? -kInfinity : kNaN;
    case Distribution::kHuge:
      return huge(random);
    case Distribution::kBFloat16Rounded:
      return widen(to_bfloat16(normal(random, 1.5)));
    case Distribution::kNearTies:
      return row_value > 0.0f ? near_tie(random) : normal(random, 1.5);
    case Distribution::kAscending:
      return row_value + 0.01f * static_cast<float>(col);
    case Distribution::kDescending:
      return row_value - 0.01f * static_cast<float>(col);
    case Distribution::kOneHot:
      return col == static_cast<int64_t>(std::fabs(row_value) * 1000.0f) % cols ? 10.0f : 0.0f;
    case Distribution::kRandomBits:
      break;
  }
  return 0.0f;
}

}  // namespace

const char* name_of(Distribution distribution) {
  constexpr const char* kNames[] = {"normal",     "wide_normal", "heavy_ties",   "all_equal",
                                    "denormal",   "all_nan",     "nan_runs",     "mixed_special",
                                    "short_rows", "huge",        "bf16_rounded", "near_ties",
                                    "ascending",  "descending",  "one_hot",      "random_bits"};
  return kNames[static_cast<size_t>(distribution)];
}

Logits::Logits(Distribution distribution, DataType dtype, int64_t rows, int64_t cols,
               int64_t row_stride, uint64_t seed)
    : dtype_(dtype), rows_(rows), cols_(cols), row_stride_(row_stride) {
  allocate();
  RandomStream random(seed);
  for (int64_t row = 0; row < rows; ++row) {
    const float row_value = normal(random, 2.0);
    for (int64_t col = 0; col < cols; ++col) {
      if (distribution == Distribution::kRandomBits) {
        set_bits(row, col, random.bits32());
      } else {
        set(row, col, draw(distribution, dtype, random, col, cols, row_value));
      }
    }
    if (distribution == Distribution::kShortRows) {
      for (int64_t finite = random.below(10); finite > 0; --finite) {
        set(row, random.below(cols), normal(random, 1.5));
      }
    }
  }
}

Logits::Logits(const std::vector<float>& values, DataType dtype, int64_t rows, int64_t cols,
               int64_t row_stride)
    : dtype_(dtype), rows_(rows), cols_(cols), row_stride_(row_stride) {
  allocate();
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      set(row, col, values[static_cast<size_t>(row * cols + col)]);
    }
  }
}

void Logits::allocate() {
  const int64_t elements = rows_ == 0 ? 0 : (rows_ - 1) * row_stride_ + cols_;
  memory_.resize(static_cast<size_t>(elements * size_of(dtype_)));
  for (int64_t row = 0; row + 1 < rows_; ++row) {
    for (int64_t col = cols_; col < row_stride_; ++col) set(row, col, 60000.0f);
  }
}

void Logits::set(int64_t row, int64_t col, float value) {
  switch (dtype_) {
    case DataType::kFloat32:
      set_bits(row, col, std::bit_cast<uint32_t>(value));
      break;
    case DataType::kFloat16:
      set_bits(row, col, to_float16(value).bits);
      break;
    case DataType::kBFloat16:
      set_bits(row, col, to_bfloat16(value).bits);
      break;
  }
}

void Logits::set_bits(int64_t row, int64_t col, uint32_t bits) {
  const auto size = static_cast<size_t>(size_of(dtype_));
  const auto index = static_cast<size_t>(row * row_stride_ + col);
  const auto narrow = static_cast<uint16_t>(bits);
  const void* source = &narrow;
  if (dtype_ == DataType::kFloat32) source = &bits;
  std::memcpy(memory_.data() + index * size, source, size);
}

ConstTensorView Logits::view() const { return {memory_.data(), dtype_, rows_, cols_, row_stride_}; }

std::vector<float> Logits::dense() const {
  std::vector<float> values;
  for (int64_t index = 0; index < rows_; ++index) {
    const std::vector<float> one = row(index);
    values.insert(values.end(), one.begin(), one.end());
  }
  return values;
}

std::vector<float> Logits::row(int64_t index) const {
  std::vector<float> out;
  for (int64_t col = 0; col < cols_; ++col) {
    switch (dtype_) {
      case DataType::kFloat32:
        out.push_back(view().as<float>().row(index)[col]);
        break;
      case DataType::kFloat16:
        out.push_back(widen(view().as<Float16>().row(index)[col]));
        break;
      case DataType::kBFloat16:
        out.push_back(widen(view().as<BFloat16>().row(index)[col]));
        break;
    }
  }
  return out;
}

}  // namespace switchyard::test

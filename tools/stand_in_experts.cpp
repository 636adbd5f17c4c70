#include "tools/stand_in_experts.h"

#include <bit>
#include <cmath>
#include <vector>

namespace switchyard::tools {
namespace {

/// SplitMix64's mixing function (Steele et al. 2014).
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// The upper 24 bits as a number in [-1, 1), exactly.
float to_unit(uint64_t bits) {
  return static_cast<float>(static_cast<int32_t>(bits >> 40) - (1 << 23)) * 0x1p-23f;
}

struct Expert {
  float scale;
  float shift;
};

Expert expert(int64_t id) {
  const uint64_t bits = mix(static_cast<uint64_t>(id));
  return {1.5f + 0.5f * to_unit(bits), to_unit(mix(bits))};
}

float answer(const Expert& expert, float x) { return x * expert.scale + expert.shift; }

template <typename T>
T narrow(float value);
template <>
float narrow(float value) {
  return value;
}
template <>
BFloat16 narrow(float value) {
  return to_bfloat16(value);
}

template <typename T>
void fill(uint64_t seed, int64_t first_token, MatrixView<T> tokens) {
  for (int64_t token = 0; token < tokens.rows; ++token) {
    const uint64_t row_seed = mix(mix(seed) + static_cast<uint64_t>(first_token + token));
    T* row = tokens.row(token);
    for (int64_t column = 0; column < tokens.cols; ++column) {
      row[column] = narrow<T>(to_unit(mix(row_seed + static_cast<uint64_t>(column))));
    }
  }
}

template <typename T>
void apply(const ExpertRows& layout, MatrixView<T> rows) {
  for (int64_t group = 0; group < layout.tokens_per_expert.size; ++group) {
    const Expert stand_in = expert(
        layout.expert_ids.empty() ? group : layout.expert_ids[static_cast<std::size_t>(group)]);
    const int64_t begin = layout.expert_offsets[group];
    for (int64_t row = begin; row < begin + layout.tokens_per_expert[group]; ++row) {
      T* values = rows.row(row);
      for (int64_t column = 0; column < rows.cols; ++column) {
        values[column] = narrow<T>(answer(stand_in, widen(values[column])));
      }
    }
  }
}

template <typename T>
Mismatch compare(MatrixView<const T> tokens, MatrixView<const int32_t> expert_ids,
                 MatrixView<const float> gate_weights, MatrixView<const T> combined) {
  std::vector<float> sums(static_cast<std::size_t>(tokens.cols));
  for (int64_t token = 0; token < tokens.rows; ++token) {
    sums.assign(sums.size(), 0.0f);
    const T* row = tokens.row(token);
    for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
      const int32_t id = expert_ids.row(token)[slot];
      if (id < 0) continue;
      const Expert stand_in = expert(id);
      const float weight = gate_weights.data == nullptr ? 1.0f : gate_weights.row(token)[slot];
      for (int64_t column = 0; column < tokens.cols; ++column) {
        const T value = narrow<T>(answer(stand_in, widen(row[column])));
        float& sum = sums[static_cast<std::size_t>(column)];
        sum = std::fma(weight, widen(value), sum);
      }
    }
    for (int64_t column = 0; column < tokens.cols; ++column) {
      const float expected = widen(narrow<T>(sums[static_cast<std::size_t>(column)]));
      const float actual = widen(combined.row(token)[column]);
      if (std::bit_cast<uint32_t>(expected) == std::bit_cast<uint32_t>(actual)) continue;
      if (std::isnan(expected) && std::isnan(actual)) continue;  // from weights that are NaN
      return {token, column, expected, actual};
    }
  }
  return {};
}

}  // namespace

void fill_tokens(uint64_t seed, int64_t first_token, TensorView tokens) {
  if (tokens.dtype == DataType::kFloat32) return fill(seed, first_token, tokens.as<float>());
  fill(seed, first_token, tokens.as<BFloat16>());
}

void apply_experts(const ExpertRows& layout, TensorView rows) {
  if (rows.dtype == DataType::kFloat32) return apply(layout, rows.as<float>());
  apply(layout, rows.as<BFloat16>());
}

Mismatch compare_with_dense(ConstTensorView tokens, MatrixView<const int32_t> expert_ids,
                            MatrixView<const float> gate_weights, ConstTensorView combined) {
  if (tokens.dtype == DataType::kFloat32) {
    return compare(tokens.as<float>(), expert_ids, gate_weights, combined.as<float>());
  }
  return compare(tokens.as<BFloat16>(), expert_ids, gate_weights, combined.as<BFloat16>());
}

}  // namespace switchyard::tools

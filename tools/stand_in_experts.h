// Experts and tokens that stand in for a model's: cheap, and told apart by their results.
#pragma once

#include <cstdint>
#include <span>

#include "switchyard/data_type.h"
#include "switchyard/tensor_view.h"

namespace switchyard::tools {

/// Fills rows with numbers in [-1, 1) that depend on the seed, the token and the column only.
///
/// @param tokens  [any, hidden_size] float32 or bfloat16.
void fill_tokens(uint64_t seed, int64_t first_token, TensorView tokens);

/// Rows sorted by expert.
struct ExpertRows {
  VectorView<const int64_t> tokens_per_expert;  ///< [num_groups]
  VectorView<const int64_t> expert_offsets;     ///< [num_groups + 1]
  std::span<const int32_t> expert_ids;          ///< [num_groups] -1: nobody's; empty: 0, 1, 2…
};

/// Every expert e answers x * scale(e) + shift(e), in float32, rounded to the rows' type.
///
/// @param rows  laid out as `layout` says, changed in place; float32 or bfloat16.
void apply_experts(const ExpertRows& layout, TensorView rows);

struct Mismatch {
  int64_t token = -1;  ///< -1: none
  int64_t column = -1;
  float expected = 0.0f;
  float actual = 0.0f;
};

/// Computes what the tokens' experts answer, one token after another and without a permutation, and
/// compares the bits.
///
/// @param tokens        [num_tokens, hidden_size], as before the experts.
/// @param expert_ids    [num_tokens, top_k].
/// @param gate_weights  [num_tokens, top_k], or empty for weight 1.
/// @param combined      [num_tokens, hidden_size], of the tokens' type.
/// @return the first value that differs.
Mismatch compare_with_dense(ConstTensorView tokens, MatrixView<const int32_t> expert_ids,
                            MatrixView<const float> gate_weights, ConstTensorView combined);

}  // namespace switchyard::tools

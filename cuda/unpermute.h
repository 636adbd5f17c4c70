// Combines the rows of each token's assignments into one row.
#pragma once

#include "cuda/device_state.h"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

/// Permuter::unpermute() with checked shapes and memory.
void unpermute_rows(const DeviceState& device, MatrixView<const int64_t> assignment_to_row,
                    ConstTensorView sorted, ConstTensorView gate_weights, TensorView tokens,
                    StreamView stream);

/// Permuter::unpermute_from() with checked shapes and memory.
void unpermute_rows_from(const DeviceState& device, MatrixView<const std::byte* const> rows,
                         DataType dtype, ConstTensorView gate_weights, TensorView tokens,
                         StreamView stream);

}  // namespace switchyard::cuda

// Copies each token's row to the rows of its assignments.
#pragma once

#include "cuda/device_state.h"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

/// Permuter::permute() with checked shapes and memory.
void permute_rows(const DeviceState& device, const Permutation& permutation, int32_t block_rows,
                  MatrixView<const std::byte> tokens, MatrixView<std::byte> sorted,
                  StreamView stream);

/// Permuter::permute_to() with checked shapes and memory.
void permute_rows_to(const DeviceState& device, MatrixView<const std::byte> tokens,
                     MatrixView<std::byte* const> rows, StreamView stream);

}  // namespace switchyard::cuda

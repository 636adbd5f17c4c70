// Sorts a batch's assignments by (expert, token, slot).
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device_state.h"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

/// Bytes of device workspace for batches of up to `max_tokens` tokens.
int64_t assignment_sort_workspace(const PermutationConfig& config, int64_t max_tokens);

/// Permuter::sort() with checked shapes and memory. The kernels behind the first are
/// dependent launches where the device has them.
void sort_assignments(const PermutationConfig& config, const DeviceState& device,
                      MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
                      const Permutation& out, std::byte* workspace, StreamView stream);

}  // namespace switchyard::cuda

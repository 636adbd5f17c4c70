// Sorts a batch's assignments by (expert, token, slot).
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device_state.h"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

/// Bytes of device workspace for batches of up to `max_tokens` tokens.
int64_t assignment_sort_workspace(const PermutationConfig& config, int64_t max_tokens);

struct SortArgs;

/// What the kernels are told of a call with checked shapes and memory.
SortArgs sort_args(const PermutationConfig& config, MatrixView<const int32_t> expert_ids,
                   ConstTensorView gate_weights, const Permutation& out);

/// Whether capacity may make the call drop assignments by weight.
bool may_drop_by_weight(const PermutationConfig& config, const SortArgs& args);

/// Whether one block may sort the call; it needs no workspace then.
bool sorts_in_one_block(const PermutationConfig& config, const SortArgs& args);

/// Permuter::sort(). Kernels are dependent launches where the device has them, the first one too
/// when it `overlaps` with what was enqueued before.
void sort_assignments(const PermutationConfig& config, const DeviceState& device, SortArgs args,
                      std::byte* workspace, StreamView stream, bool overlaps = false);

}  // namespace switchyard::cuda

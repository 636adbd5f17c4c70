// Sorts a batch's assignments by (expert, token, slot).
#pragma once

#include <cstddef>
#include <span>

#include "cpu/threads.h"
#include "switchyard/permutation.h"

namespace switchyard::cpu {

/// Bytes of workspace for batches of up to `max_tokens` tokens.
int64_t assignment_sort_workspace(const PermutationConfig& config, const ThreadTeam& team,
                                  int64_t max_tokens);

/// Permuter::sort() with checked shapes.
void sort_assignments(const PermutationConfig& config, const ThreadTeam& team,
                      MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
                      const Permutation& out, std::span<std::byte> workspace);

}  // namespace switchyard::cpu

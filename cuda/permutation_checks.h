// Checks that kernels can follow the views of a permutation call.
#pragma once

#include "cuda/device_state.h"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

inline void check_permutation(const DeviceState& device, const Permutation& permutation) {
  check_vector(device, "tokens_per_expert", permutation.tokens_per_expert);
  check_vector(device, "expert_offsets", permutation.expert_offsets);
  check_vector(device, "row_to_assignment", permutation.row_to_assignment);
  check_matrix(device, "assignment_to_row", permutation.assignment_to_row, alignof(int64_t));
  check_vector(device, "block_experts", permutation.block_experts);
  device.check_memory("totals", permutation.totals, alignof(PermutationTotals));
}

}  // namespace switchyard::cuda

// Checks that kernels can follow the views of a permutation call. Memory is looked at only where it
// has elements, as in the front door.
#pragma once

#include <cstddef>

#include "cuda/device_state.h"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

template <typename T>
void check_vector(const DeviceState& device, const char* name, VectorView<T> view) {
  device.check_memory(name, view.empty() ? nullptr : view.data, alignof(T));
}

template <typename View>
void check_matrix(const DeviceState& device, const char* name, const View& view,
                  std::size_t alignment) {
  device.check_memory(name, view.rows == 0 || view.cols == 0 ? nullptr : view.data, alignment);
}

inline void check_tensor(const DeviceState& device, const char* name, const ConstTensorView& view) {
  check_matrix(device, name, view, static_cast<std::size_t>(size_of(view.dtype)));
}

inline void check_permutation(const DeviceState& device, const Permutation& permutation) {
  check_vector(device, "tokens_per_expert", permutation.tokens_per_expert);
  check_vector(device, "expert_offsets", permutation.expert_offsets);
  check_vector(device, "row_to_assignment", permutation.row_to_assignment);
  check_matrix(device, "assignment_to_row", permutation.assignment_to_row, alignof(int64_t));
  check_vector(device, "block_experts", permutation.block_experts);
  device.check_memory("totals", permutation.totals, alignof(PermutationTotals));
}

}  // namespace switchyard::cuda

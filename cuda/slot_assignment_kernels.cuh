// The kernel that turns sorted assignments into slots: an assignment's place among its expert's,
// which sorting found, says whose turn it is.
#pragma once

#include "cuda/threads.cuh"
#include "switchyard/slot_assigner_backend.h"

namespace switchyard::cuda {

inline constexpr int kAssignThreads = 256;

struct AssignArgs {
  MatrixView<const int32_t> expert_ids;
  MatrixView<int32_t> slot_ids;
  VectorView<int64_t> tokens_per_slot;
  int32_t rank;

  // The placement.
  const int32_t* replica_offsets;  ///< [num_experts + 1]
  const int32_t* replica_slots;
  const int32_t* slot_to_expert;  ///< [num_slots] -1 for an empty one
  const int32_t* slot_copies;     ///< [num_slots] which of its expert's copies a slot is

  // What sorting by expert gave.
  const int64_t* tokens_per_expert;             ///< [num_experts]
  const int64_t* expert_offsets;                ///< [num_experts + 1]
  MatrixView<const int64_t> assignment_to_row;  ///< dense

  [[nodiscard]] __device__ int64_t num_assignments() const {
    return expert_ids.rows * expert_ids.cols;
  }
  [[nodiscard]] __device__ int32_t num_copies(int32_t expert) const {
    return replica_offsets[expert + 1] - replica_offsets[expert];
  }
};

/// value mod divisor. A division of 64 bits takes several times as long as one of 32.
__device__ __forceinline__ int32_t remainder_of(int64_t value, int32_t divisor) {
  if (value <= UINT32_MAX) {
    return static_cast<int32_t>(static_cast<uint32_t>(value) % static_cast<uint32_t>(divisor));
  }
  return static_cast<int32_t>(value % divisor);
}

__device__ inline int32_t slot_of(const AssignArgs& args, int32_t expert, int64_t row) {
  if (row < 0) return -1;  // and the id may be anything
  const int64_t turn = row - args.expert_offsets[expert] + args.rank;
  return args
      .replica_slots[args.replica_offsets[expert] + remainder_of(turn, args.num_copies(expert))];
}

__global__ void __launch_bounds__(kAssignThreads) assign_slots_kernel(AssignArgs args) {
  wait_for_previous_grid();
  const int64_t num_threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t slot = thread; slot < args.tokens_per_slot.size; slot += num_threads) {
    const int32_t expert = args.slot_to_expert[slot];
    args.tokens_per_slot[slot] =
        expert < 0 ? 0
                   : assignments_of_copy(args.tokens_per_expert[expert], args.rank,
                                         args.slot_copies[slot], args.num_copies(expert));
  }
  for (int64_t i = thread; i < args.num_assignments(); i += num_threads) {
    const int64_t token = i / args.expert_ids.cols;
    const int64_t choice = i - token * args.expert_ids.cols;
    args.slot_ids.row(token)[choice] = slot_of(args, args.expert_ids.row(token)[choice],
                                               args.assignment_to_row.row(token)[choice]);
  }
}

}  // namespace switchyard::cuda

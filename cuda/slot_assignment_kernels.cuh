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
  int64_t block_tokens;  ///< tokens a thread block takes; their assignments fit 32 bits
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

/// For grids with a thread for every slot and a block for every block_tokens tokens.
__global__ void __launch_bounds__(kAssignThreads) assign_slots_kernel(AssignArgs args) {
  wait_for_previous_grid();
  const int64_t slot = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (slot < args.tokens_per_slot.size) {
    const int32_t expert = args.slot_to_expert[slot];
    args.tokens_per_slot[slot] =
        expert < 0 ? 0
                   : assignments_of_copy(args.tokens_per_expert[expert], args.rank,
                                         args.slot_copies[slot], args.num_copies(expert));
  }
  const int64_t first =
      min(static_cast<int64_t>(blockIdx.x) * args.block_tokens, args.expert_ids.rows);
  const int64_t num_tokens = min(args.block_tokens, args.expert_ids.rows - first);
  const uint32_t top_k = static_cast<uint32_t>(args.expert_ids.cols);
  const uint32_t num_assignments = static_cast<uint32_t>(num_tokens) * top_k;
  for (uint32_t i = threadIdx.x; i < num_assignments; i += blockDim.x) {
    const int64_t token = first + i / top_k;
    const uint32_t choice = i % top_k;
    args.slot_ids.row(token)[choice] = slot_of(args, args.expert_ids.row(token)[choice],
                                               args.assignment_to_row.row(token)[choice]);
  }
}

}  // namespace switchyard::cuda

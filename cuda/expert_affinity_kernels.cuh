// The kernels of expert affinity. Integers throughout, so the order of atomics cannot show.
#pragma once

#include "cuda/intrinsics.cuh"
#include "switchyard/affinity_score.h"

namespace switchyard::cuda {

inline constexpr int kRecordThreads = 256;
inline constexpr int kUpdateThreads = 128;

/// One entry an expert.
struct AffinityState {
  uint32_t* units;
  int64_t* activations;
  unsigned long long* recorded;
  int num_experts;
};

struct RecordArgs {
  MatrixView<const int32_t> expert_ids;
  int64_t tokens_per_block;  ///< times the columns of expert_ids below 2^32
  unsigned long long* recorded;
  int num_experts;
};

struct UpdateArgs {
  AffinityState state;
  AffinityRule rule;
  const int64_t* tokens_per_expert;  ///< null: none beside what was recorded
};

/// Counts a block's assignments in shared memory and adds each expert's at once.
__global__ void __launch_bounds__(kRecordThreads) record_affinity_kernel(RecordArgs args) {
  SWITCHYARD_DYNAMIC_SHARED(uint32_t, counts);  // [num_experts]
  const auto first = static_cast<int>(threadIdx.x);
  for (int expert = first; expert < args.num_experts; expert += kRecordThreads) counts[expert] = 0;
  __syncthreads();
  const int64_t token = blockIdx.x * args.tokens_per_block;
  const int64_t num_tokens = min(args.tokens_per_block, args.expert_ids.rows - token);
  const auto slots = static_cast<uint32_t>(args.expert_ids.cols);
  const auto num_assignments = static_cast<int64_t>(slots) * num_tokens;
  for (int64_t i = first; i < num_assignments; i += kRecordThreads) {
    const uint32_t row = static_cast<uint32_t>(i) / slots;
    const int32_t id = args.expert_ids.row(token + row)[static_cast<uint32_t>(i) - row * slots];
    if (id >= 0 && id < args.num_experts) atomicAdd(&counts[id], 1u);
  }
  __syncthreads();
  for (int expert = first; expert < args.num_experts; expert += kRecordThreads) {
    if (counts[expert] != 0) atomicAdd(&args.recorded[expert], counts[expert]);
  }
}

/// One thread updates one expert. The exchange lets another stream record meanwhile.
__global__ void __launch_bounds__(kUpdateThreads) update_affinity_kernel(UpdateArgs args) {
  const AffinityState& state = args.state;
  const int expert = static_cast<int>(blockIdx.x * kUpdateThreads + threadIdx.x);
  if (expert < state.num_experts) {
    uint64_t count = atomicExch(&state.recorded[expert], 0ull);
    const int64_t given = args.tokens_per_expert == nullptr ? 0 : args.tokens_per_expert[expert];
    if (given > 0) count += static_cast<uint64_t>(given);
    state.units[expert] = updated_units(args.rule, state.units[expert], count);
    state.activations[expert] = added_activations(state.activations[expert], count);
  }
}

__global__ void __launch_bounds__(kUpdateThreads) reset_affinity_kernel(AffinityState state) {
  const int expert = static_cast<int>(blockIdx.x * kUpdateThreads + threadIdx.x);
  if (expert < state.num_experts) {
    state.units[expert] = 0;
    state.activations[expert] = 0;
    atomicExch(&state.recorded[expert], 0ull);
  }
}

}  // namespace switchyard::cuda

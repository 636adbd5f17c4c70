// A row of few experts in the registers of one thread, under the conditions of row_shortcut.cuh.
#pragma once

#include "cuda/row_router.cuh"

namespace switchyard::cuda {

inline constexpr int kMaxThreadTopK = 4;

/// Routes one token. False, and nothing written, where fewer than top_k logits are finite.
template <int kMaxRowExperts, typename T>
__device__ bool route_row_by_thread(const RouteTask& task, const BlockTally& tally, int64_t token) {
  using Packed = PackedElements<T, 4>;
  const T* const row = task.logits.as<T>().row(token);
  const int top_k = task.config.top_k;
  uint32_t keys[kMaxRowExperts];
#pragma unroll
  for (int first = 0; first < kMaxRowExperts; first += 4) {
    if (first < task.config.num_experts) {
      const Packed packed = load_vector(reinterpret_cast<const Packed*>(row + first));
#pragma unroll
      for (int j = 0; j < 4; ++j) keys[first + j] = ordered_key(widen(packed.values[j]));
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) keys[first + j] = 0;
    }
  }
  uint32_t chosen[kMaxThreadTopK] = {};
  int experts[kMaxThreadTopK] = {};
  bool is_short = false;
#pragma unroll
  for (int slot = 0; slot < kMaxThreadTopK; ++slot) {
    // Not a way out of the loop: that could not be unrolled, and the arrays would leave the
    // registers.
    if (slot < top_k) {
#pragma unroll
      for (int expert = 0; expert < kMaxRowExperts; ++expert) {
        const bool is_better = keys[expert] > chosen[slot];
        chosen[slot] = is_better ? keys[expert] : chosen[slot];
        experts[slot] = is_better ? expert : experts[slot];
      }
      is_short |= chosen[slot] == 0;
#pragma unroll
      for (int expert = 0; expert < kMaxRowExperts; ++expert) {
        keys[expert] = expert == experts[slot] ? 0 : keys[expert];
      }
    }
  }
  if (is_short) return false;
  const float max = float_of_key(chosen[0]);
  float terms[kMaxThreadTopK];
#pragma unroll
  for (int slot = 0; slot < kMaxThreadTopK; ++slot) {
    terms[slot] = slot < top_k ? numerics::exp(float_of_key(chosen[slot]) - max) : 0.0f;
  }
  static_assert(kMaxThreadTopK == 4);
  const float total = (terms[0] + terms[2]) + (terms[1] + terms[3]);
#pragma unroll
  for (int slot = 0; slot < kMaxThreadTopK; ++slot) {
    if (slot < top_k) {
      store_choice(task, tally, token, slot, experts[slot],
                   terms[slot] / total * task.config.routed_scaling_factor);
    }
  }
  return true;
}

}  // namespace switchyard::cuda

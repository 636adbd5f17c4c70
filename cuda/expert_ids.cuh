// What a block that also sorts notes of the experts that its tokens choose, while it routes.
#pragma once

#include "cuda/intrinsics.cuh"

namespace switchyard::cuda {

/// Tokens of a block whose choices are noted, at most.
inline constexpr int kMaxNotedTokens = 32;

/// Counts of experts that lie in one word, a byte each.
inline constexpr int kCountsInWord = 4;

/// Shared memory of a block; null where nothing is noted. Experts are local ones, and no token has
/// one twice, so that the order of the atomics does not show. The three lie behind one another.
struct ChoiceNotes {
  uint32_t* takers = nullptr;   ///< [num_experts] a bit for every token of the block that has it
  uint32_t* counts = nullptr;   ///< [num_experts / kCountsInWord] of this block
  uint32_t* choices = nullptr;  ///< [assignments] token of the block << 16 | expert + 1; 0: none
  int64_t first_token = 0;
  uint32_t num_assignments = 0;
  uint32_t num_words = 0;  ///< of memory, a multiple of 4
  uint32_t top_k = 1;
  uint32_t first_expert = 0;
  uint32_t num_experts = 0;

  __device__ __forceinline__ void add(int64_t token, int slot, int id) const {
    if (takers == nullptr) return;
    const uint32_t expert = static_cast<uint32_t>(id) - first_expert;
    if (expert >= num_experts) return;
    const auto row = static_cast<uint32_t>(token - first_token);
    choices[row * top_k + static_cast<uint32_t>(slot)] = row << 16 | (expert + 1);
    atomicOr(&takers[expert], 1u << row);
    atomicAdd(&counts[expert / kCountsInWord], 1u << (expert % kCountsInWord * 8));
  }

  /// For whole blocks, before any of their threads add.
  __device__ __forceinline__ void clear() const {
    if (takers == nullptr) return;
#pragma unroll 1
    for (uint32_t i = 4 * threadIdx.x; i < num_words; i += 4 * blockDim.x) {
      store16(takers + i, {0, 0, 0, 0});
    }
  }
};

}  // namespace switchyard::cuda

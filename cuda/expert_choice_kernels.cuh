// The kernels of expert choice: one turns logits into keys, laid out by expert; in the other, a
// dependent launch behind it, each block chooses for one expert.
#pragma once

#include "cuda/expert_choice.cuh"

namespace switchyard::cuda {

/// One warp scores one token at a time; a block writes the keys of kTileTokens neighbours together.
template <int kPerLane>
__global__ void __launch_bounds__(kTileTokens* kWarpSize, 1)
    score_tokens_kernel(ExpertChoiceTask task) {
  using Layout = RowLayout<kPerLane>;
  using Packed = PackedElements<uint32_t, Layout::kVector>;
  constexpr int kTileExperts = Layout::kVector * kWarpSize;
  // Padded, so that neither way of going through it meets one bank twice.
  SWITCHYARD_SHARED(Packed, tile, [kTileTokens][kWarpSize + 1]);
  let_next_grid_start();
  const int64_t num_tiles = ceil_div(task.num_tokens(), kTileTokens);
  for (int64_t index = blockIdx.x; index < num_tiles; index += gridDim.x) {
    const int64_t first_token = index * kTileTokens;
    const int64_t token = first_token + warp_index_in_block();
    uint32_t keys[kPerLane] = {};
    if (token < task.num_tokens()) keys_of_token(task, token, keys);
#pragma unroll
    for (int chunk = 0; chunk < Layout::kChunks; ++chunk) {
      const int64_t first_expert = int64_t{chunk} * kTileExperts;
      if (first_expert >= task.num_experts()) break;
      Packed packed;
#pragma unroll
      for (int j = 0; j < Layout::kVector; ++j)
        packed.values[j] = keys[chunk * Layout::kVector + j];
      __syncthreads();  // the tile before has been read
      store_vector(&tile[warp_index_in_block()][lane_index()], packed);
      __syncthreads();
      for (auto i = static_cast<int>(threadIdx.x); i < kTileTokens * kTileExperts;
           i += static_cast<int>(blockDim.x)) {
        const int column = i % kTileTokens;
        const int row = i / kTileTokens;
        if (first_expert + row >= task.num_experts()) break;
        // Whole tiles: keys behind the last token are written too, but never read.
        task.keys.row(first_expert + row)[first_token + column] =
            tile[column][row / Layout::kVector].values[row % Layout::kVector];
      }
    }
  }
}

/// Bytes of a block's dynamic shared memory: candidates to compare, or counters of digits.
inline int64_t choice_shared_bytes(const ExpertChoiceTask& task, int num_threads) {
  if (task.compares()) return kMaxCompared * static_cast<int64_t>(sizeof(unsigned long long));
  return num_threads / kWarpSize * kNumDigits * static_cast<int64_t>(sizeof(uint32_t));
}

/// Writes an expert's best tokens and their keys, best first; where too few take part, the last
/// ones have kMaskedKey. `candidates` are [kMaxCompared], `counters` [warps][kNumDigits]: the one
/// or the other is used. For whole blocks.
__device__ inline void choose_tokens(const ExpertChoiceTask& task, int64_t expert,
                                     unsigned long long* candidates, uint32_t* counters,
                                     CutoffScratch& scratch) {
  const uint32_t* keys = task.keys.row(expert);
  const int64_t num_tokens = task.num_tokens();
  const int64_t capacity = task.capacity();
  const KeyedTokens chosen = task.chosen_by(expert);
  if (num_tokens <= kMaxCompared) {
    for (auto token = static_cast<int>(threadIdx.x); token < num_tokens;
         token += static_cast<int>(blockDim.x)) {
      candidates[token] = candidate_of(keys[token], token);
    }
    __syncthreads();
    sort_by_comparing(candidates, static_cast<int>(num_tokens), capacity, chosen);
    return;
  }
  const bool compares = task.compares();
  const auto take = [&](int64_t token, uint32_t key, bool kept, int64_t position) {
    if (!kept) return;
    if (compares) {
      candidates[position] = candidate_of(key, static_cast<int>(token));
    } else {
      chosen.keys[position] = key;
      chosen.tokens[position] = static_cast<int32_t>(token);
    }
  };
  const WeightCutoff cutoff = find_weight_cutoff(keys, num_tokens, capacity, scratch);
  visit_keys(keys, num_tokens, cutoff, scratch, take);
  __syncthreads();
  if (compares) {
    sort_by_comparing(candidates, static_cast<int>(capacity), capacity, chosen);
    return;
  }
  const KeyedTokens spare = task.spare_of(expert);
  for (int shift = 0; shift < 32; shift += 16) {
    sort_by_digit(chosen, spare, static_cast<uint32_t>(capacity), shift, counters, scratch);
    sort_by_digit(spare, chosen, static_cast<uint32_t>(capacity), shift + 8, counters, scratch);
  }
}

/// One block chooses for one expert. Blocks are a power of two of threads, kNumDigits at least.
__global__ void __launch_bounds__(kChoiceThreads, 1) choose_tokens_kernel(ExpertChoiceTask task) {
  SWITCHYARD_SHARED(CutoffScratch, scratch);
  SWITCHYARD_SHARED(ColumnScratch, column_scratch);
  SWITCHYARD_DYNAMIC_SHARED(unsigned long long, candidates);
  SWITCHYARD_DYNAMIC_SHARED(uint32_t, counters);
  wait_for_previous_grid();
  const int64_t expert = blockIdx.x;
  ColumnSoftmax column;
  if (!task.over_experts) {
    column = softmax_of_column(task.keys.row(expert), task.num_tokens(), column_scratch);
  }
  choose_tokens(task, expert, candidates, counters, scratch);
  __syncthreads();
  const KeyedTokens chosen = task.chosen_by(expert);
  for (int64_t place = threadIdx.x; place < task.capacity(); place += blockDim.x) {
    const uint32_t key = chosen.keys[place];
    float weight = 0.0f;
    if (key > kUnrankedKey) {
      weight = task.over_experts ? float_of_key(key) : column.term(key) / column.denominator;
    }
    if (key == kMaskedKey) chosen.tokens[place] = -1;
    chosen.keys[place] = __float_as_uint(weight);
  }
}

}  // namespace switchyard::cuda

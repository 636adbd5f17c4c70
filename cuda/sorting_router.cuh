// The sort of a cluster's assignments behind its routing: each block counts and ranks its own
// tokens' assignments, reads from the others' shared memory how many each expert has, lays out all
// rows for itself and gives its assignments theirs. A launch without clusters is a cluster of one
// block.
#pragma once

#include "cuda/assignment_sort.cuh"
#include "cuda/block_router.cuh"

namespace switchyard::cuda {

/// Tokens of this block, which come in order of the blocks' ranks, by warp: `at_once` neighbours.
__device__ __forceinline__ TokenSteps warp_steps(const TokenRange& tokens, int at_once = 1) {
  return {tokens.first + at_once * warp_index_in_block(), tokens.first + tokens.num_tokens,
          int64_t{at_once} * warps_per_block()};
}

/// Bytes of a block's shared memory for the sort, behind its sums.
inline int64_t cluster_sort_bytes(int64_t num_experts, int64_t num_warps, int64_t num_assignments) {
  constexpr auto kWord = static_cast<int64_t>(sizeof(uint32_t));
  return (num_experts + 1) * static_cast<int64_t>(sizeof(int64_t)) +
         ((num_warps + 3) * num_experts + num_assignments) * kWord;
}

/// What a block of a cluster keeps while it sorts.
struct ClusterSort {
  int64_t* begins;          ///< [num_experts + 1] where rows begin
  uint32_t* counts;         ///< [num_experts] of this block; the other blocks read them
  uint32_t* counts_before;  ///< [num_experts] of the blocks before
  uint32_t* kept_rows;      ///< [num_experts] of all blocks
  uint32_t* warp_counts;    ///< [warps][num_experts]
  uint32_t* waiting;        ///< [assignments] expert << 16 | place among its warp's

  __device__ ClusterSort(const SortArgs& args, unsigned char* memory) {
    begins = reinterpret_cast<int64_t*>(memory);
    counts = reinterpret_cast<uint32_t*>(begins + args.num_experts + 1);
    counts_before = counts + args.num_experts;
    kept_rows = counts_before + args.num_experts;
    warp_counts = kept_rows + args.num_experts;
    waiting = warp_counts + warps_per_block() * args.num_experts;
  }
};

/// Places that wait in shared memory, with their experts; both are less than 2^16.
struct PlacesInCluster {
  const SortArgs& args;
  const TokenRange& tokens;
  const ClusterSort& sort;

  __device__ __forceinline__ void put(uint32_t index, uint32_t expert, uint32_t place) const {
    sort.waiting[index] = expert << 16 | place;
    if (expert >= static_cast<uint32_t>(args.num_experts)) row_at(args, tokens, index) = -1;
  }
  [[nodiscard]] __device__ __forceinline__ uint32_t expert(uint32_t index) const {
    return sort.waiting[index] >> 16;
  }
  [[nodiscard]] __device__ __forceinline__ int64_t place(uint32_t index) const {
    return sort.waiting[index] & 0xffffu;
  }
};

/// Every block has the layout for itself; the first one writes it to the permutation too.
struct LayoutInCluster {
  static constexpr bool kMayDropByWeight = false;
  const SortArgs& args;
  const ClusterSort& sort;

  __device__ void set(int expert, int64_t begin, int64_t kept, int64_t group_begin) const {
    sort.begins[expert] = begin;
    sort.kept_rows[expert] = static_cast<uint32_t>(kept);
    if (cluster_rank() == 0) LayoutInOutputs{args}.set(expert, begin, kept, group_begin);
  }
  __device__ void finish(const PermutationTotals& totals) const {
    sort.begins[args.num_experts] = totals.num_rows;
    if (cluster_rank() == 0) LayoutInOutputs{args}.finish(totals);
  }
  [[nodiscard]] __device__ __forceinline__ int64_t begin(uint32_t expert) const {
    return sort.begins[expert];
  }
  [[nodiscard]] __device__ __forceinline__ int64_t kept(int64_t expert) const {
    return sort.kept_rows[expert];
  }
  // A small batch has fewer than 2^32 rows, which are faster to divide.
  [[nodiscard]] __device__ __forceinline__ int64_t blocks(int64_t rows) const {
    return static_cast<uint32_t>(rows) / static_cast<uint32_t>(args.block_rows);
  }
  [[nodiscard]] __device__ __forceinline__ int64_t behind_blocks(int64_t rows) const {
    return static_cast<uint32_t>(rows) % static_cast<uint32_t>(args.block_rows);
  }
};

/// The sum over the cluster's blocks of what each has at `value`, and in `before` of the blocks
/// before this one.
template <class T>
__device__ __forceinline__ T cluster_sum(T* value, T& before) {
  constexpr unsigned kAtOnce = 8;
  const unsigned own = cluster_rank();
  const unsigned size = cluster_size();
  T sum = 0;
  for (unsigned first = 0; first < size; first += kAtOnce) {
    T batch[kAtOnce];
#pragma unroll
    for (unsigned i = 0; i < kAtOnce; ++i) {
      batch[i] = first + i < size ? *shared_of_block(value, first + i) : T{0};
    }
#pragma unroll
    for (unsigned i = 0; i < kAtOnce; ++i) {
      if (first + i == own) before = sum;
      sum += batch[i];
    }
  }
  return sum;
}

template <class T>
__device__ __forceinline__ T cluster_sum(T* value) {
  T before = 0;
  return cluster_sum(value, before);
}

/// Writes the batch's sums, each by one thread of the cluster. The blocks' sums are complete.
__device__ inline void store_cluster_sums(const RouteTask& task, const BlockTally& tally,
                                          int& num_degenerate_rows) {
  const auto first = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const auto step = static_cast<int>(gridDim.x * blockDim.x);
  if (tally.tokens_per_expert != nullptr) {
    for (int i = first; i < task.config.num_expert_ids(); i += step) {
      task.tokens_per_expert[i] =
          static_cast<unsigned long long>(cluster_sum(&tally.tokens_per_expert[i]));
    }
  }
  if (tally.loss_sums != nullptr) {
    const auto size = static_cast<int>(router_loss_sums_size(task.config.num_experts));
    for (int i = first; i < size; i += step) task.loss_sums[i] = cluster_sum(&tally.loss_sums[i]);
  }
  if (task.num_degenerate_rows != nullptr && first == 0) {
    *task.num_degenerate_rows = static_cast<unsigned long long>(cluster_sum(&num_degenerate_rows));
  }
}

/// Ranks the assignments that this block has routed, and counts them for the cluster. For whole
/// blocks whose threads have written their ids.
__device__ inline void count_block(const SortArgs& args, const TokenRange& tokens,
                                   const ClusterSort& sort) {
  __syncthreads();
  clear_counters(sort.warp_counts, warps_per_block() * args.num_experts);
  __syncthreads();
  rank_in_warps(args, tokens, sort.warp_counts, PlacesInCluster{args, tokens, sort});
  __syncthreads();
  for (int expert = static_cast<int>(threadIdx.x); expert < args.num_experts;
       expert += static_cast<int>(blockDim.x)) {
    sort.counts[expert] = scan_warps(sort.warp_counts, args.num_experts, expert);
  }
}

/// Lays out the rows of the cluster's assignments. The blocks' counts are complete.
__device__ inline void lay_out_cluster(const SortArgs& args, const ClusterSort& sort,
                                       int64_t* warp_sums) {
  lay_out(
      args, warp_sums,
      [&](int expert) { return cluster_sum(&sort.counts[expert], sort.counts_before[expert]); },
      LayoutInCluster{args, sort});
}

/// Gives this block's assignments their rows.
__device__ inline void place_block(const SortArgs& args, const TokenRange& tokens,
                                   const ClusterSort& sort) {
  __syncthreads();
  const LayoutInCluster layout{args, sort};
  place_assignments(args, tokens, sort.warp_counts, PlacesInCluster{args, tokens, sort}, layout,
                    [&](uint32_t expert) { return sort.counts_before[expert]; });
  fill_unused(args, layout);
}

}  // namespace switchyard::cuda

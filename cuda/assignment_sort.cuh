// The parts that the sorting kernels are made of: counting with a stable order inside a block, the
// layout of the experts' rows, and the writing of rows.
//
// An assignment's place among its expert's is the number of equal ones before it in (token, slot)
// order: those of earlier blocks, of earlier warps of its block, and of earlier lanes and rounds of
// its warp. Nothing is claimed by an atomic whose order could show.
#pragma once

#include "cuda/numerics.cuh"
#include "cuda/permutation.cuh"
#include "cuda/threads.cuh"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

struct SortArgs {
  MatrixView<const int32_t> expert_ids;
  ConstTensorView gate_weights;  ///< read to drop by weight only
  Permutation out;
  int32_t top_k;
  int32_t block_rows;
  int32_t first_local_expert;
  int32_t num_experts;             ///< local ones
  int64_t capacity;                ///< assignments that an expert takes
  int64_t block_tokens;            ///< tokens a thread block takes
  int64_t num_blocks;              ///< thread blocks that take tokens; a grid may have more
  uint32_t block_rows_reciprocal;  ///< 2^32 / block_rows, rounded up; 0 for 1
  bool notes_choices;              ///< blocks have noted their tokens' choices: few assignments

  // Sorts of several launches.
  int64_t* positions;         ///< [num_blocks][num_experts] counts, then places of the first ones
  int64_t* assigned;          ///< [num_experts]
  uint32_t* finished_blocks;  ///< of the grid that lays out

  // Sorts that drop by weight; null otherwise. Grouped by expert, dropped ones included.
  int64_t* group_begins;       ///< [num_experts]
  uint32_t* group_keys;        ///< [assignments]
  int64_t* group_assignments;  ///< [assignments]

  [[nodiscard]] __device__ bool may_drop() const { return capacity < expert_ids.rows * top_k; }
  [[nodiscard]] __device__ bool drops_by_weight() const { return group_keys != nullptr; }

  /// Whole blocks of rows in `rows`, of which few assignments have less than 2^24.
  [[nodiscard]] __device__ __forceinline__ uint32_t blocks_of_few(uint32_t rows) const {
    return block_rows == 1 ? rows : __umulhi(rows, block_rows_reciprocal);
  }

  /// Index of a local expert; num_experts for every other id, whatever it is.
  [[nodiscard]] __device__ uint32_t local(int32_t id) const {
    const uint32_t expert = static_cast<uint32_t>(id) - static_cast<uint32_t>(first_local_expert);
    return min(expert, static_cast<uint32_t>(num_experts));
  }
};

/// Consecutive tokens; their assignments are counted from the first one's.
struct TokenRange {
  int64_t first = 0;
  uint32_t num_tokens = 0;
  uint32_t top_k = 1;

  [[nodiscard]] __device__ uint32_t num_assignments() const { return num_tokens * top_k; }
  [[nodiscard]] __device__ int64_t token_of(uint32_t index) const { return first + index / top_k; }
  [[nodiscard]] __device__ uint32_t slot_of(uint32_t index) const { return index % top_k; }
};

/// What this thread block sorts: nothing in blocks behind num_blocks.
__device__ __forceinline__ TokenRange tokens_of_block(const SortArgs& args) {
  const int64_t num_tokens = args.expert_ids.rows;
  const int64_t first = min(static_cast<int64_t>(blockIdx.x) * args.block_tokens, num_tokens);
  const int64_t last = min(first + args.block_tokens, num_tokens);
  return {first, static_cast<uint32_t>(last - first), static_cast<uint32_t>(args.top_k)};
}

/// A warp's consecutive part of its block's assignments, begun at a multiple of the warp size.
struct WarpShare {
  uint32_t begin;
  uint32_t end;
};

__device__ __forceinline__ WarpShare share_of_warp(const TokenRange& tokens) {
  const uint32_t total = tokens.num_assignments();
  const uint32_t rounds = (total + blockDim.x - 1) / blockDim.x;
  const uint32_t size = rounds * static_cast<uint32_t>(kWarpSize);
  const uint32_t begin = static_cast<uint32_t>(warp_index_in_block()) * size;
  return {min(begin, total), min(begin + size, total)};
}

/// What this lane takes in a round of its warp.
__device__ __forceinline__ uint32_t index_in_round(uint32_t begin, int round) {
  return begin + static_cast<uint32_t>(round * kWarpSize + lane_index());
}

__device__ __forceinline__ uint32_t expert_at(const SortArgs& args, const TokenRange& tokens,
                                              uint32_t index) {
  return args.local(args.expert_ids.row(tokens.token_of(index))[tokens.slot_of(index)]);
}

__device__ __forceinline__ int64_t& row_at(const SortArgs& args, const TokenRange& tokens,
                                           uint32_t index) {
  return args.out.assignment_to_row.row(tokens.token_of(index))[tokens.slot_of(index)];
}

// Ids on their way to a lane at once.
inline constexpr int kRoundsAtOnce = 4;

/// An assignment's place among its warp's, on its way to the same thread through its element of
/// assignment_to_row.
struct PlacesInRows {
  const SortArgs& args;
  const TokenRange& tokens;

  /// For an assignment whose expert is not local, what it keeps.
  __device__ __forceinline__ void put(uint32_t index, uint32_t expert, uint32_t place) const {
    const bool is_local = expert < static_cast<uint32_t>(args.num_experts);
    row_at(args, tokens, index) = is_local ? static_cast<int64_t>(place) : -1;
  }
  [[nodiscard]] __device__ __forceinline__ uint32_t expert(uint32_t index) const {
    return expert_at(args, tokens, index);
  }
  [[nodiscard]] __device__ __forceinline__ int64_t place(uint32_t index) const {
    return row_at(args, tokens, index);
  }
};

/// Counts each warp's assignments in counts[warp][num_experts], which are zero before. An
/// assignment's place among its warp's waits in `places` for the same thread.
template <class Places>
__device__ inline void rank_in_warps(const SortArgs& args, const TokenRange& tokens,
                                     uint32_t* counts, const Places& places) {
  const uint32_t none = static_cast<uint32_t>(args.num_experts);
  uint32_t* const counts_of_warp = counts + warp_index_in_block() * args.num_experts;
  const WarpShare share = share_of_warp(tokens);
  for (uint32_t begin = share.begin; begin < share.end; begin += kRoundsAtOnce * kWarpSize) {
    uint32_t experts[kRoundsAtOnce];
#pragma unroll
    for (int round = 0; round < kRoundsAtOnce; ++round) {
      const uint32_t index = index_in_round(begin, round);
      experts[round] = index < share.end ? expert_at(args, tokens, index) : none;
    }
#pragma unroll
    for (int round = 0; round < kRoundsAtOnce; ++round) {
      const uint32_t index = index_in_round(begin, round);
      const uint32_t expert = experts[round];
      const uint32_t peers = __match_any_sync(kAllLanes, expert);
      const uint32_t lower = static_cast<uint32_t>(__popc(peers & lanes_before()));
      const uint32_t before = expert == none ? 0 : counts_of_warp[expert];
      __syncwarp();
      if (expert != none && lower == 0) {
        counts_of_warp[expert] = before + static_cast<uint32_t>(__popc(peers));
      }
      __syncwarp();
      if (index < share.end) places.put(index, expert, before + lower);
    }
  }
}

/// The experts' rows, written to the permutation and read from there.
struct LayoutInOutputs {
  static constexpr bool kMayDropByWeight = true;
  const SortArgs& args;

  __device__ void set(int expert, int64_t begin, int64_t kept, int64_t group_begin) const {
    args.out.tokens_per_expert[expert] = kept;
    args.out.expert_offsets[expert] = begin;
    if (args.drops_by_weight()) args.group_begins[expert] = group_begin;
  }
  __device__ void finish(const PermutationTotals& totals) const {
    args.out.expert_offsets[args.num_experts] = totals.num_rows;
    *args.out.totals = totals;
  }
  /// Where an expert's rows begin; of num_experts, where all of them end.
  [[nodiscard]] __device__ __forceinline__ int64_t begin(uint32_t expert) const {
    return args.out.expert_offsets[expert];
  }
  /// Rows of an expert that hold an assignment.
  [[nodiscard]] __device__ __forceinline__ int64_t kept(int64_t expert) const {
    return args.out.tokens_per_expert[expert];
  }
  /// Whole blocks of rows in `rows`, and what is left of them.
  [[nodiscard]] __device__ __forceinline__ int64_t blocks(int64_t rows) const {
    return rows / args.block_rows;
  }
  [[nodiscard]] __device__ __forceinline__ int64_t behind_blocks(int64_t rows) const {
    return rows % args.block_rows;
  }
};

/// Gives every expert its rows. For one whole block; `assigned_of` says how many assignments an
/// expert has.
template <class AssignedOf, class Layout>
__device__ inline void lay_out(const SortArgs& args, int64_t* warp_sums,
                               const AssignedOf& assigned_of, const Layout& layout) {
  const int num_experts = args.num_experts;
  const int64_t block_rows = args.block_rows;
  int64_t all_rows = 0;
  int64_t all_kept = 0;
  int64_t all_assigned = 0;
  for (int first = 0; first < num_experts; first += static_cast<int>(blockDim.x)) {
    const int expert = first + static_cast<int>(threadIdx.x);
    const int64_t assigned = expert < num_experts ? assigned_of(expert) : 0;
    const int64_t kept = min(assigned, args.capacity);
    const int64_t rows = layout.blocks(kept + block_rows - 1) * block_rows;
    int64_t sum = 0;
    const int64_t begin = all_rows + block_exclusive_sum(rows, warp_sums, sum);
    all_rows += sum;
    (void)block_exclusive_sum(kept, warp_sums, sum);
    all_kept += sum;
    const int64_t group_begin = all_assigned + block_exclusive_sum(assigned, warp_sums, sum);
    all_assigned += sum;
    if (expert < num_experts) layout.set(expert, begin, kept, group_begin);
  }
  if (threadIdx.x == 0) layout.finish({all_rows, all_kept, all_assigned - all_kept, 0});
}

/// Gives an assignment the row at `position` of its expert's; returns it. The layout is visible.
template <class Layout>
__device__ __forceinline__ int64_t give_row(const SortArgs& args, const Layout& layout,
                                            uint32_t expert, int64_t position, int64_t assignment) {
  const int64_t row = layout.begin(expert) + position;
  args.out.row_to_assignment[row] = assignment;
  // Every block in use begins with an assignment.
  if (layout.behind_blocks(position) == 0) {
    args.out.block_experts[layout.blocks(row)] = static_cast<int32_t>(expert);
  }
  return row;
}

/// -1 for the rows and blocks that hold no assignment. For whole grids.
template <class Layout>
__device__ inline void fill_unused(const SortArgs& args, const Layout& layout) {
  const int64_t num_threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (args.block_rows > 1) {
    for (int64_t expert = global_warp_index(); expert < args.num_experts;
         expert += num_threads / kWarpSize) {
      const int64_t begin = layout.begin(static_cast<uint32_t>(expert)) + layout.kept(expert);
      const int64_t end = layout.begin(static_cast<uint32_t>(expert) + 1);
      for (int64_t row = begin + lane_index(); row < end; row += kWarpSize) {
        args.out.row_to_assignment[row] = -1;
      }
    }
  }
  const int64_t rows_in_use = layout.begin(static_cast<uint32_t>(args.num_experts));
  for (int64_t row = rows_in_use + thread; row < args.out.row_to_assignment.size;
       row += num_threads) {
    args.out.row_to_assignment[row] = -1;
  }
  for (int64_t block = layout.blocks(rows_in_use) + thread; block < args.out.block_experts.size;
       block += num_threads) {
    args.out.block_experts[block] = -1;
  }
}

/// Adds the tokens that lost all their local assignments to the totals. The rows are visible.
__device__ inline void add_fully_dropped(const SortArgs& args, const TokenRange& tokens) {
  uint32_t count = 0;
  for (uint32_t begin = 0; begin < tokens.num_tokens; begin += blockDim.x) {
    const uint32_t token = begin + threadIdx.x;
    bool any_local = false;
    bool any_kept = false;
    if (token < tokens.num_tokens) {
      const int32_t* ids = args.expert_ids.row(tokens.first + token);
      const int64_t* rows = args.out.assignment_to_row.row(tokens.first + token);
      for (int32_t slot = 0; slot < args.top_k; ++slot) {
        any_local |= args.local(ids[slot]) < static_cast<uint32_t>(args.num_experts);
        any_kept |= rows[slot] >= 0;
      }
    }
    count += static_cast<uint32_t>(__popc(__ballot_sync(kAllLanes, any_local && !any_kept)));
  }
  if (lane_index() == 0 && count != 0) {
    atomicAdd(reinterpret_cast<unsigned long long*>(&args.out.totals->fully_dropped_tokens),
              static_cast<unsigned long long>(count));
  }
}

/// Orders as the weights do: -0 equals +0, and NaN comes before everything else.
__device__ __forceinline__ uint32_t weight_key(float weight) {
  return weight != weight ? 0 : ordered_bits(weight);
}

/// Puts an assignment at `position` of its expert's group.
__device__ __forceinline__ void group_assignment(const SortArgs& args, uint32_t expert,
                                                 int64_t position, int64_t assignment) {
  const int64_t token = assignment / args.top_k;
  const int64_t slot = assignment - token * args.top_k;
  const int64_t place = args.group_begins[expert] + position;
  args.group_keys[place] = weight_key(gate_weight_at(args.gate_weights, token, slot));
  args.group_assignments[place] = assignment;
}

/// Turns places within warps into rows, or groups the assignments for the choice by weight. The
/// counts are those of the warps before, `before` says how many an expert has in earlier blocks.
template <class Places, class Layout, class Before>
__device__ inline void place_assignments(const SortArgs& args, const TokenRange& tokens,
                                         const uint32_t* counts, const Places& waiting,
                                         const Layout& layout, const Before& before) {
  const uint32_t none = static_cast<uint32_t>(args.num_experts);
  const uint32_t* const counts_of_warp = counts + warp_index_in_block() * args.num_experts;
  const int64_t first_assignment = tokens.first * args.top_k;
  const WarpShare share = share_of_warp(tokens);
  for (uint32_t begin = share.begin; begin < share.end; begin += kRoundsAtOnce * kWarpSize) {
    uint32_t experts[kRoundsAtOnce];
    int64_t places[kRoundsAtOnce];
#pragma unroll
    for (int round = 0; round < kRoundsAtOnce; ++round) {
      const uint32_t index = index_in_round(begin, round);
      experts[round] = index < share.end ? waiting.expert(index) : none;
      places[round] = experts[round] == none ? 0 : waiting.place(index);
    }
#pragma unroll
    for (int round = 0; round < kRoundsAtOnce; ++round) {
      const uint32_t index = index_in_round(begin, round);
      const uint32_t expert = experts[round];
      if (expert == none) continue;
      const int64_t position = places[round] + counts_of_warp[expert] + before(expert);
      const int64_t assignment = first_assignment + index;
      if (Layout::kMayDropByWeight && args.drops_by_weight()) {
        group_assignment(args, expert, position, assignment);
      } else {
        row_at(args, tokens, index) =
            position < args.capacity ? give_row(args, layout, expert, position, assignment) : -1;
      }
    }
  }
}

/// One block sorts a whole batch. `counts` are [warps][num_experts] in shared memory, `warp_sums`
/// kMaxWarps of it.
__device__ inline void sort_in_block(const SortArgs& args, uint32_t* counts, int64_t* warp_sums) {
  const TokenRange tokens = tokens_of_block(args);
  clear_counters(counts, warps_per_block() * args.num_experts);
  __syncthreads();
  const PlacesInRows places{args, tokens};
  const LayoutInOutputs layout{args};
  rank_in_warps(args, tokens, counts, places);
  __syncthreads();
  lay_out(
      args, warp_sums, [&](int expert) { return scan_warps(counts, args.num_experts, expert); },
      layout);
  __syncthreads();
  place_assignments(args, tokens, counts, places, layout, [](uint32_t) { return 0; });
  fill_unused(args, layout);
  if (args.may_drop()) {
    __syncthreads();
    add_fully_dropped(args, tokens);
  }
}

}  // namespace switchyard::cuda

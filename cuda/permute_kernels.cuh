// The kernel that copies rows. A token's row is read once and written to all of its assignments:
// (1 + top_k) rows of traffic a token, where a copy for every sorted row would move 2 * top_k. Rows
// that no assignment has are cleared by blocks of their own in the same launch.
#pragma once

#include "cuda/permutation.cuh"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

// Each thread copies one unit; 128 units of 16 bytes cut the usual hidden sizes into whole parts,
// and 16 such blocks on a multiprocessor have 32 KiB of loads under way.
inline constexpr int kPermuteThreads = 128;
// Rows that one block clears in its part: few, so that a large padding is spread over many blocks.
inline constexpr int kRowsToClear = 8;

struct PermuteArgs {
  Permutation permutation;
  MatrixView<const std::byte> tokens;
  MatrixView<std::byte> sorted;
  int64_t row_units;       ///< units of the kernel's type in a row
  int64_t parts;           ///< of a row, kPermuteThreads units each
  int64_t padding_groups;  ///< of kRowsToClear rows; an expert has no more
  int64_t num_items;       ///< parts of tokens, then parts of padding groups
};

/// Copies one unit a thread.
template <class Unit>
__device__ inline void copy_part(const PermuteArgs& args, int64_t token, int64_t index) {
  const MatrixView<int64_t>& rows = args.permutation.assignment_to_row;
  const bool inside = index < args.row_units;
  bool is_loaded = false;
  Unit unit{};
  for (int64_t first = 0; first < rows.cols; first += kWarpSize) {
    const int64_t slot = first + lane_index();
    const int64_t row_of_lane = slot < rows.cols ? rows.row(token)[slot] : -1;
    uint32_t present = __ballot_sync(kAllLanes, row_of_lane >= 0);
    if (present != 0 && !is_loaded) {
      is_loaded = true;  // late, since many tokens have no row where experts live elsewhere
      const Unit* from = reinterpret_cast<const Unit*>(args.tokens.row(token));
      if (inside) unit = load_vector(from + index);
    }
    for (; present != 0; present &= present - 1) {
      const int64_t row = __shfl_sync(kAllLanes, row_of_lane, __ffs(static_cast<int>(present)) - 1);
      Unit* to = reinterpret_cast<Unit*>(args.sorted.row(row));
      if (inside) store_vector(to + index, unit);
    }
  }
}

/// Clears one unit a thread in the rows of a group behind the ones an expert uses.
template <class Unit>
__device__ inline void clear_part(const PermuteArgs& args, int64_t expert, int64_t group,
                                  int64_t index) {
  const int64_t* offsets = args.permutation.expert_offsets.data;
  const int64_t begin = offsets[expert] + args.permutation.tokens_per_expert[expert];
  const int64_t first = begin + group * kRowsToClear;
  const int64_t end = min(first + kRowsToClear, offsets[expert + 1]);
  if (index >= args.row_units) return;
  for (int64_t row = first; row < end; ++row) {
    store_vector(reinterpret_cast<Unit*>(args.sorted.row(row)) + index, Unit{});
  }
}

template <class Unit>
__global__ void __launch_bounds__(kPermuteThreads) permute_kernel(PermuteArgs args) {
  for (int64_t item = blockIdx.x; item < args.num_items; item += gridDim.x) {
    const int64_t whole = item / args.parts;
    const int64_t index = (item - whole * args.parts) * kPermuteThreads + threadIdx.x;
    if (whole < args.tokens.rows) {
      copy_part<Unit>(args, whole, index);
    } else {
      const int64_t padding = whole - args.tokens.rows;
      const int64_t expert = padding / args.padding_groups;
      clear_part<Unit>(args, expert, padding - expert * args.padding_groups, index);
    }
  }
}

}  // namespace switchyard::cuda

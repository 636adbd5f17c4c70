// The kernel that copies rows. A token's row is read once and written to all of its assignments:
// (1 + top_k) rows of traffic a token, where a copy for every sorted row would move 2 * top_k. Rows
// that no assignment has are cleared by blocks of their own in the same launch; among rows that lie
// anywhere there are none.
#pragma once

#include "cuda/permutation.cuh"
#include "switchyard/permutation.h"

namespace switchyard::cuda {

// Each thread copies one unit; 128 units of 16 bytes cut the usual hidden sizes into whole parts,
// and 16 such blocks on a multiprocessor have 32 KiB of loads under way.
inline constexpr int kPermuteThreads = 128;
// Rows that one block clears in its part: few, so that a large padding is spread over many blocks.
inline constexpr int kRowsToClear = 8;

/// Rows to copy.
template <class Rows>
struct CopyArgs {
  MatrixView<const std::byte> tokens;
  Rows rows;
  int64_t row_units;  ///< units of the kernel's type in a row
  int64_t parts;      ///< of a row, kPermuteThreads units each
};

struct PermuteArgs {
  CopyArgs<SortedRows<std::byte>> copy;
  VectorView<const int64_t> tokens_per_expert;
  VectorView<const int64_t> expert_offsets;
  int64_t padding_groups;  ///< of kRowsToClear rows; an expert has no more
  int64_t num_items;       ///< parts of tokens, then parts of padding groups
};

/// Copies one unit a thread.
template <class Unit, class Rows>
__device__ inline void copy_part(const CopyArgs<Rows>& args, int64_t token, int64_t index) {
  const int64_t bytes = index * static_cast<int64_t>(sizeof(Unit));
  const bool inside = index < args.row_units;
  bool is_loaded = false;
  Unit unit{};
  for (int64_t first = 0; first < args.rows.top_k(); first += kWarpSize) {
    const int64_t place_here = place_of_lane(args.rows, token, first);
    uint32_t present = __ballot_sync(kAllLanes, place_here >= 0);
    if (present != 0 && !is_loaded) {
      is_loaded = true;  // late, since many tokens have no row where experts live elsewhere
      const Unit* from = reinterpret_cast<const Unit*>(args.tokens.row(token));
      if (inside) unit = load_vector(from + index);
    }
    for (; present != 0; present &= present - 1) {
      const int lane = __ffs(static_cast<int>(present)) - 1;
      const int64_t place = __shfl_sync(kAllLanes, place_here, lane);
      if (inside) store_vector(reinterpret_cast<Unit*>(args.rows.at(place, bytes)), unit);
    }
  }
}

/// Clears one unit a thread in the rows of a group behind the ones an expert uses.
template <class Unit>
__device__ inline void clear_part(const PermuteArgs& args, int64_t expert, int64_t group,
                                  int64_t index) {
  const int64_t begin = args.expert_offsets[expert] + args.tokens_per_expert[expert];
  const int64_t first = begin + group * kRowsToClear;
  const int64_t end = min(first + kRowsToClear, args.expert_offsets[expert + 1]);
  if (index >= args.copy.row_units) return;
  const int64_t bytes = index * static_cast<int64_t>(sizeof(Unit));
  for (int64_t row = first; row < end; ++row) {
    store_vector(reinterpret_cast<Unit*>(args.copy.rows.at(row, bytes)), Unit{});
  }
}

template <class Unit>
__global__ void __launch_bounds__(kPermuteThreads) permute_kernel(PermuteArgs args) {
  const CopyArgs<SortedRows<std::byte>>& copy = args.copy;
  for (int64_t item = blockIdx.x; item < args.num_items; item += gridDim.x) {
    const int64_t whole = item / copy.parts;
    const int64_t index = (item - whole * copy.parts) * kPermuteThreads + threadIdx.x;
    if (whole < copy.tokens.rows) {
      copy_part<Unit>(copy, whole, index);
    } else {
      const int64_t padding = whole - copy.tokens.rows;
      const int64_t expert = padding / args.padding_groups;
      clear_part<Unit>(args, expert, padding - expert * args.padding_groups, index);
    }
  }
}

template <class Unit>
__global__ void __launch_bounds__(kPermuteThreads)
    permute_to_kernel(CopyArgs<AddressedRows<std::byte>> args) {
  const int64_t num_items = args.tokens.rows * args.parts;
  for (int64_t item = blockIdx.x; item < num_items; item += gridDim.x) {
    const int64_t token = item / args.parts;
    const int64_t index = (item - token * args.parts) * kPermuteThreads + threadIdx.x;
    copy_part<Unit>(args, token, index);
  }
}

}  // namespace switchyard::cuda

// Launches of the kernels that show what each intrinsic gives. All results are in device memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::test {

/// out [4, 32]: __shfl_sync, up, down and xor of 100 * lane by `argument` in segments of `width`.
cudaError_t launch_shuffles(int argument, int width, int* out);
/// out [4, 32]: shuffles from the next lane of a double, a bfloat16, an int64 and a float2, as
/// doubles.
cudaError_t launch_shuffles_of_types(double* out);

struct VoteResults {
  unsigned ballot;
  int any;
  int all;
};
/// out [32]: each lane's votes on its bit of `predicates`.
cudaError_t launch_votes(unsigned predicates, VoteResults* out);

struct MatchResults {
  unsigned any;
  unsigned any_wide;  ///< of 64-bit values
  unsigned all;
  int all_equal;
};
/// out [32]: each lane's matches of lane / `group_size`.
cudaError_t launch_matches(int group_size, MatchResults* out);

struct Reductions {
  int sum;
  int lowest;
  int highest;
  unsigned lowest_unsigned;
  unsigned highest_unsigned;
  unsigned conjunction;
  unsigned disjunction;
  unsigned difference;
};
/// out [32]: each lane's reductions of values [32].
cudaError_t launch_reductions(const int* values, Reductions* out);

/// out [32]: odd lanes sum in one branch, even lanes vote in the other.
cudaError_t launch_split_warp(unsigned* out);
/// out [2, 32]: __activemask() of the whole warp and of its first eight lanes.
cudaError_t launch_active_masks(unsigned* out);

struct BarrierResults {
  int count;
  int any;
  int all;
  int neighbor;  ///< what the next thread wrote before the barrier
};
/// out [block.x * block.y]: barriers on the predicate thread % 3 == 0.
cudaError_t launch_barriers(dim3 block, BarrierResults* out);

struct AtomicResults {
  int sum;
  int difference;
  int lowest;
  int highest;
  unsigned conjunction;
  unsigned disjunction;
  unsigned parity;
  unsigned up;
  unsigned down;
  unsigned exchanged;
  unsigned swapped;
  float float_sum;
  unsigned long long wide_sum;
};
/// Adds the atomics of `num_blocks` blocks of 96 threads to *out, in shared memory where `shared`.
cudaError_t launch_atomics(int num_blocks, bool shared, AtomicResults* out);
/// Every thread of 96 adds one to *value under a lock.
cudaError_t launch_lock(int num_blocks, int* lock, int* value);

struct Position {
  uint3 thread;
  uint3 block;
  dim3 block_size;
  dim3 grid_size;
};
/// out [threads of the grid], blocks and threads in linear order.
cudaError_t launch_positions(dim3 grid, dim3 block, Position* out);

/// out [3, 32 * num_warps]: lane, warp in the block and warp in the grid.
cudaError_t launch_indices(int num_blocks, int warps_per_block, int64_t* out);

/// Copies `count` times 16 bytes plainly and, behind them, through the streaming forms.
cudaError_t launch_vector_copies(const uint4* in, int count, uint4* out);

/// out [num_blocks]: the sum that each block formed in dynamic shared memory of `num_values` ints.
cudaError_t launch_dynamic_shared(int num_blocks, int num_values, int64_t shared_bytes, int* out);

/// values [size]: each becomes 2 * value + addend. One thread a value, or the last error.
cudaError_t launch_step(int* values, int size, int addend, cudaStream_t stream,
                        bool dependent = false);

}  // namespace switchyard::test

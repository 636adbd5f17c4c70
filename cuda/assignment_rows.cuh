// The rows of so few assignments that their block has noted each token's experts while it routed:
// what counts is how many steps wait for one another. Blocks of a cluster read from the others'
// shared memory how many assignments each expert has, and every block lays out all rows for itself.
#pragma once

#include "cuda/assignment_sort.cuh"
#include "cuda/expert_ids.cuh"

namespace switchyard::cuda {

/// Experts that a warp lays out at once, kCountsInWord in a lane.
inline constexpr int kSegmentExperts = kWarpSize * kCountsInWord;

/// A block's shared memory; all of it 16-byte aligned.
struct FewAssignments {
  ChoiceNotes notes;
  uint32_t* begins;         ///< [num_padded] where rows begin, in blocks of rows from the segment's
  uint32_t* kept;           ///< [num_padded] rows that hold an assignment
  uint32_t* counts_before;  ///< [num_padded] assignments of the cluster's blocks before
  uint32_t* segment_blocks;  ///< [segments] blocks of rows, and behind them zeros
  uint32_t* segment_kept;    ///< the same, of `kept`
  uint32_t* segment_dropped;
  int num_segments;

  __host__ __device__ static int64_t segments_of(int64_t num_experts) {
    return (num_experts + kSegmentExperts - 1) / kSegmentExperts;
  }
  /// Words of what is noted, whole fours.
  __host__ __device__ static int64_t noted_words(int64_t segments, int64_t num_assignments) {
    return segments * (kSegmentExperts + kWarpSize) + (num_assignments + 3) / 4 * 4;
  }
  static int64_t bytes(int64_t num_experts, int64_t num_assignments) {
    const int64_t segments = segments_of(num_experts);
    const int64_t words = noted_words(segments, num_assignments) + 3 * segments * kSegmentExperts +
                          3 * (segments + 6);
    return words * static_cast<int64_t>(sizeof(uint32_t));
  }

  __device__ FewAssignments(const SortArgs& args, const TokenRange& tokens, unsigned char* memory)
      : num_segments(static_cast<int>(segments_of(args.num_experts))) {
    const int padded = num_segments * kSegmentExperts;
    const int padded_segments = (num_segments + 6) / 4 * 4;  // three more are written
    notes.takers = reinterpret_cast<uint32_t*>(memory);
    notes.counts = notes.takers + padded;
    notes.choices = notes.counts + padded / kCountsInWord;
    notes.first_token = tokens.first;
    notes.num_assignments = tokens.num_assignments();
    notes.num_words = static_cast<uint32_t>(noted_words(num_segments, tokens.num_assignments()));
    notes.top_k = tokens.top_k;
    notes.first_expert = static_cast<uint32_t>(args.first_local_expert);
    notes.num_experts = static_cast<uint32_t>(args.num_experts);
    begins = notes.takers + notes.num_words;
    kept = begins + padded;
    counts_before = kept + padded;
    segment_blocks = counts_before + padded;
    segment_kept = segment_blocks + padded_segments;
    segment_dropped = segment_kept + padded_segments;
  }
};

/// The sum of the segments' values before `segment`.
__device__ __forceinline__ uint32_t sum_of_segments(const uint32_t* values, int segment) {
  uint32_t sum = 0;
#pragma unroll 1
  for (int first = 0; first < segment; first += 4) {
    const uint4 four = load16(values + first);
    sum += (four.x + (first + 1 < segment ? four.y : 0)) +
           ((first + 2 < segment ? four.z : 0) + (first + 3 < segment ? four.w : 0));
  }
  return sum;
}

/// The layout of few assignments, once it is visible.
struct LayoutOfFew {
  const SortArgs& args;
  const FewAssignments& few;

  [[nodiscard]] __device__ __forceinline__ uint32_t first_block(uint32_t expert) const {
    if (expert >= few.notes.num_experts) return num_blocks();
    return few.begins[expert] +
           sum_of_segments(few.segment_blocks, static_cast<int>(expert / kSegmentExperts));
  }
  [[nodiscard]] __device__ __forceinline__ uint32_t num_blocks() const {
    return sum_of_segments(few.segment_blocks, few.num_segments);
  }
  [[nodiscard]] __device__ __forceinline__ int64_t begin(uint32_t expert) const {
    return static_cast<int64_t>(first_block(expert)) * args.block_rows;
  }
  [[nodiscard]] __device__ __forceinline__ int64_t kept(int64_t expert) const {
    return few.kept[expert];
  }
  [[nodiscard]] __device__ __forceinline__ int64_t blocks(int64_t rows) const {
    return args.blocks_of_few(static_cast<uint32_t>(rows));
  }
};

/// Counts of a lane's experts by 16 bits: of the first and the third, and of the others.
struct PairedCounts {
  uint32_t even = 0;
  uint32_t odd = 0;

  __device__ __forceinline__ void add(uint32_t bytes) {
    constexpr uint32_t kEvenBytes = 0x00ff00ff;
    even += bytes & kEvenBytes;
    odd += bytes >> 8 & kEvenBytes;
  }
};

/// A word of counts of half of the blocks that a cluster may have.
struct CountsOfBlocks {
  static constexpr unsigned kBlocks = 8;
  uint32_t words[kBlocks];

  __device__ __forceinline__ void load(uint32_t* counts, unsigned first, unsigned size) {
#pragma unroll
    for (unsigned i = 0; i < kBlocks; ++i) {
      words[i] = first + i < size ? *shared_of_block(counts, first + i) : 0;
    }
  }
  __device__ __forceinline__ void add_to(PairedCounts& sum, PairedCounts& sum_before,
                                         unsigned first, unsigned own) const {
#pragma unroll
    for (unsigned i = 0; i < kBlocks; ++i) {
      if (first + i == own) sum_before = sum;
      sum.add(words[i]);
    }
  }
};

/// Lays out the experts of a segment, for one warp, from all blocks' counts.
__device__ inline void lay_out_segment(const SortArgs& args, const FewAssignments& few,
                                       int segment) {
  constexpr unsigned kHalf = CountsOfBlocks::kBlocks;
  const int lane = lane_index();
  const unsigned own = cluster_rank();
  const unsigned size = cluster_size();
  uint32_t* const counts = few.notes.counts + segment * kWarpSize + lane;
  PairedCounts sum_of_all;
  PairedCounts sum_before;
  // All of them are on their way before any is needed.
  CountsOfBlocks lower;
  CountsOfBlocks upper;
  lower.load(counts, 0, size);
  if (size > kHalf) upper.load(counts, kHalf, size);
  lower.add_to(sum_of_all, sum_before, 0, own);
  if (size > kHalf) upper.add_to(sum_of_all, sum_before, kHalf, own);
  const auto [even, odd] = sum_of_all;
  const uint32_t assigned[kCountsInWord] = {even & 0xffff, odd & 0xffff, even >> 16, odd >> 16};
  const auto capacity = static_cast<uint32_t>(min(args.capacity, int64_t{UINT16_MAX}));
  uint32_t kept[kCountsInWord];
  uint32_t begins[kCountsInWord];
  // Blocks of rows in the upper half, assignments that are kept in the lower; both are few.
  uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < kCountsInWord; ++i) {
    kept[i] = min(assigned[i], capacity);
    begins[i] = sum;
    sum += args.blocks_of_few(kept[i] + static_cast<uint32_t>(args.block_rows) - 1) << 16 | kept[i];
  }
  const uint32_t inclusive = warp_inclusive_sum(sum);
  const uint32_t before = inclusive - sum;
  const int expert = segment * kSegmentExperts + lane * kCountsInWord;
  store16(few.begins + expert, {(before + begins[0]) >> 16, (before + begins[1]) >> 16,
                                (before + begins[2]) >> 16, (before + begins[3]) >> 16});
  store16(few.counts_before + expert, {sum_before.even & 0xffff, sum_before.odd & 0xffff,
                                       sum_before.even >> 16, sum_before.odd >> 16});
  store16(few.kept + expert, {kept[0], kept[1], kept[2], kept[3]});
  uint32_t dropped = 0;
  if (args.may_drop()) {
#pragma unroll
    for (int i = 0; i < kCountsInWord; ++i) dropped += assigned[i] - kept[i];
    dropped = __reduce_add_sync(kAllLanes, dropped);
  }
  if (lane == kWarpSize - 1) {
    few.segment_blocks[segment] = inclusive >> 16;
    few.segment_kept[segment] = inclusive & 0xffff;
    few.segment_dropped[segment] = dropped;
  } else if (lane < 3 && segment == few.num_segments - 1) {
    // Sums read whole fours.
    few.segment_blocks[few.num_segments + lane] = 0;
    few.segment_kept[few.num_segments + lane] = 0;
    few.segment_dropped[few.num_segments + lane] = 0;
  }
}

/// Gives an assignment that has a local expert its row, -1 where capacity leaves none.
__device__ __forceinline__ int64_t row_of_choice(const SortArgs& args, const FewAssignments& few,
                                                 uint32_t choice, int64_t assignment) {
  const uint32_t expert = (choice & 0xffff) - 1;
  const uint32_t earlier = few.notes.takers[expert] & ((1u << (choice >> 16)) - 1);
  const uint32_t position = few.counts_before[expert] + static_cast<uint32_t>(__popc(earlier));
  if (position >= args.capacity) return -1;
  const auto segment = static_cast<int>(expert / kSegmentExperts);
  const uint32_t first_block = few.begins[expert] + sum_of_segments(few.segment_blocks, segment);
  const uint32_t block = args.blocks_of_few(position);
  const int64_t row = static_cast<int64_t>(first_block) * args.block_rows + position;
  args.out.row_to_assignment[row] = assignment;
  // Every block in use begins with an assignment.
  if (block * static_cast<uint32_t>(args.block_rows) == position) {
    args.out.block_experts[first_block + block] = static_cast<int32_t>(expert);
  }
  return row;
}

/// Gives this block's assignments their rows, and writes this block's part of the layout. For whole
/// blocks, to which the layout is visible.
__device__ inline void place_few(const SortArgs& args, const TokenRange& tokens,
                                 const FewAssignments& few) {
  const int64_t first_assignment = tokens.first * args.top_k;
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < few.notes.num_assignments; i += blockDim.x) {
    const uint32_t choice = few.notes.choices[i];
    if (choice == 0) {
      row_at(args, tokens, i) = -1;
      continue;
    }
    const uint32_t token = choice >> 16;
    args.out.assignment_to_row.row(tokens.first + token)[i - token * tokens.top_k] =
        row_of_choice(args, few, choice, first_assignment + i);
  }
  const LayoutOfFew layout{args, few};
  const auto step = static_cast<int>(gridDim.x * blockDim.x);
  // From the last thread down: the first ones have assignments.
  const auto first = step - 1 - static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
#pragma unroll 1
  for (int expert = first; expert < args.num_experts; expert += step) {
    args.out.tokens_per_expert[expert] = layout.kept(expert);
    args.out.expert_offsets[expert] = layout.begin(static_cast<uint32_t>(expert));
  }
  if (first == 0) {
    const int64_t num_rows = static_cast<int64_t>(layout.num_blocks()) * args.block_rows;
    args.out.expert_offsets[args.num_experts] = num_rows;
    *args.out.totals = {num_rows, sum_of_segments(few.segment_kept, few.num_segments),
                        sum_of_segments(few.segment_dropped, few.num_segments), 0};
  }
}

}  // namespace switchyard::cuda

#include "cuda/assignment_sort.h"

#include <algorithm>

#include "cuda/assignment_sort_kernels.cuh"
#include "cuda/workspace_parts.h"

namespace switchyard::cuda {
namespace {

// What one block sorts: it must not take longer than the launches that it saves.
constexpr int64_t kMaxSmallAssignments = 8192;
constexpr int64_t kMaxSmallRounds = 16;   // a warp takes 32 assignments a round
constexpr int64_t kMaxSmallRows = 65536;  // padding included; they are written whole

// A thread block of a larger sort takes the first number of assignments until there are
// kManyBlocks of them, about two for each multiprocessor of the largest devices. Then blocks take
// more, up to the second number, which 32-bit counters hold.
constexpr int64_t kBlockAssignments = 4096;
constexpr int64_t kMaxBlockAssignments = int64_t{1} << 20;
constexpr int64_t kManyBlocks = 256;
// Rows and blocks without an assignment that a thread block should fill.
constexpr int64_t kRowsToFill = 16384;

// Counters of [warps][experts] that fit in what every device gives unasked, beside scan sums.
constexpr int64_t kMaxCounters = (47 * 1024) / sizeof(uint32_t);

bool drops_by_weight(const PermutationConfig& config) {
  return config.capacity.mode != ExpertCapacity::Mode::kUnlimited &&
         config.capacity.drop_policy == DropPolicy::kWeight;
}

int64_t most_warps(const PermutationConfig& config) {
  return std::clamp<int64_t>(kMaxCounters / std::max(config.num_local(), 1), 1, kMaxWarps);
}

/// Whether one block sorts a batch that is not to drop by weight. Once it is false for a number of
/// tokens it is so for every larger one.
bool is_small(const PermutationConfig& config, int64_t num_tokens) {
  const int64_t assignments = num_tokens * config.top_k;
  const int64_t rows =
      assignments + std::min<int64_t>(assignments, config.num_local()) * (config.block_rows - 1);
  return rows <= kMaxSmallRows &&
         assignments <=
             std::min(kMaxSmallAssignments, most_warps(config) * kWarpSize * kMaxSmallRounds);
}

/// Tokens that one thread block takes.
int64_t block_tokens(const PermutationConfig& config, int64_t num_tokens) {
  const int64_t share = ceil_div(num_tokens * config.top_k, kManyBlocks);
  return ceil_div(std::clamp(share, kBlockAssignments, kMaxBlockAssignments), config.top_k);
}

/// Thread blocks that sort up to `max_tokens` tokens, at most.
int64_t most_blocks(const PermutationConfig& config, int64_t max_tokens) {
  const int64_t assignments = max_tokens * config.top_k;
  return std::max(std::min(ceil_div(assignments, kBlockAssignments), kManyBlocks),
                  ceil_div(assignments, kMaxBlockAssignments));
}

/// Lays out the workspace of sorts in several launches.
void take_parts(WorkspaceParts& parts, const PermutationConfig& config, int64_t max_tokens,
                SortArgs& args) {
  args.positions = parts.take<int64_t>(most_blocks(config, max_tokens) * config.num_local());
  args.assigned = parts.take<int64_t>(config.num_local());
  args.finished_blocks = parts.take<uint32_t>(1);
  if (!drops_by_weight(config)) return;
  args.group_begins = parts.take<int64_t>(config.num_local());
  args.group_keys = parts.take<uint32_t>(max_tokens * config.top_k);
  args.group_assignments = parts.take<int64_t>(max_tokens * config.top_k);
}

dim3 blocks_of(int64_t count) { return {static_cast<unsigned>(count)}; }

dim3 warps_of(int64_t count) { return {static_cast<unsigned>(count * kWarpSize)}; }

/// The launches of one sort.
class Launches {
 public:
  /// The first one may run beside what was enqueued before it where `overlaps` says so.
  Launches(const SortArgs& args, const DeviceState& device, StreamView stream, int64_t warps,
           bool overlaps)
      : args_(args),
        device_(device),
        stream_(stream.get()),
        warps_(warps),
        overlaps_(overlaps && device.chains_launches()) {}

  void sort_small() const {
    // A warp for every round there is, but enough of them for the experts and for filling.
    const int64_t rounds = ceil_div(args_.expert_ids.rows * args_.top_k, kWarpSize);
    const int64_t warps = std::min(warps_, std::max<int64_t>(rounds, 8));
    enqueue("sort_small_kernel", sort_small_kernel, blocks_of(1), warps_of(warps),
            counter_bytes(warps), overlaps_);
  }

  void sort_large() const {
    const int64_t rows = args_.out.row_to_assignment.size;
    const dim3 blocks =
        blocks_of(std::max(args_.num_blocks, std::min(ceil_div(rows, kRowsToFill), kManyBlocks)));
    enqueue("count_kernel", count_kernel, blocks_of(args_.num_blocks), warps_of(kMaxWarps),
            counter_bytes(1), overlaps_);
    enqueue("lay_out_kernel", lay_out_kernel,
            blocks_of(std::max<int64_t>(1, ceil_div(args_.num_experts, kWarpSize))),
            warps_of(kMaxWarps), 0, device_.chains_launches());
    enqueue("place_kernel", place_kernel, blocks, warps_of(warps_), counter_bytes(warps_),
            device_.chains_launches());
    if (args_.group_keys == nullptr) return;
    if (args_.num_experts > 0) {
      enqueue("cut_kernel", cut_kernel, blocks_of(args_.num_experts), dim3(kCutThreads), 0,
              device_.chains_launches());
    }
    enqueue("finish_cut_kernel", finish_cut_kernel, blocks, dim3(kCutThreads), 0,
            device_.chains_launches());
  }

 private:
  /// Never 0: kernels declare the counters though there may be no expert to count.
  [[nodiscard]] int64_t counter_bytes(int64_t warps) const {
    return warps * std::max(args_.num_experts, 1) * static_cast<int64_t>(sizeof(uint32_t));
  }

  void enqueue(const char* name, void (*kernel)(SortArgs), dim3 grid, dim3 block,
               int64_t shared_bytes, bool dependent) const {
    const LaunchConfig config{.grid = grid,
                              .block = block,
                              .shared_bytes = shared_bytes,
                              .stream = stream_,
                              .dependent = dependent};
    device_.check(SWITCHYARD_LAUNCH(kernel, config, args_), name);
  }

  const SortArgs& args_;
  const DeviceState& device_;
  const cudaStream_t stream_;
  const int64_t warps_;
  const bool overlaps_;
};

}  // namespace

int64_t assignment_sort_workspace(const PermutationConfig& config, int64_t max_tokens) {
  if (is_small(config, max_tokens) && !drops_by_weight(config)) return 0;
  WorkspaceParts parts;
  SortArgs measured{};
  take_parts(parts, config, max_tokens, measured);
  return parts.bytes();
}

SortArgs sort_args(const PermutationConfig& config, MatrixView<const int32_t> expert_ids,
                   ConstTensorView gate_weights, const Permutation& out) {
  SortArgs args{};
  args.expert_ids = expert_ids;
  args.gate_weights = gate_weights;
  args.out = out;
  args.top_k = config.top_k;
  args.block_rows = config.block_rows;
  args.first_local_expert = config.first_local_expert;
  args.num_experts = config.num_local();
  args.capacity = capacity_rows(config.capacity, expert_ids.rows, config.top_k, config.num_experts);
  args.block_tokens = expert_ids.rows;
  args.num_blocks = 1;
  args.block_rows_reciprocal =
      static_cast<uint32_t>(ceil_div(int64_t{1} << 32, int64_t{config.block_rows}));
  return args;
}

bool may_drop_by_weight(const PermutationConfig& config, const SortArgs& args) {
  return args.capacity < args.expert_ids.rows * config.top_k && drops_by_weight(config);
}

bool sorts_in_one_block(const PermutationConfig& config, const SortArgs& args) {
  return is_small(config, args.expert_ids.rows) && !may_drop_by_weight(config, args);
}

void sort_assignments(const PermutationConfig& config, const DeviceState& device, SortArgs args,
                      std::byte* workspace, StreamView stream, bool overlaps) {
  const int64_t num_tokens = args.expert_ids.rows;
  const Launches launches(args, device, stream, most_warps(config), overlaps);
  if (sorts_in_one_block(config, args)) return launches.sort_small();
  args.block_tokens = block_tokens(config, num_tokens);
  args.num_blocks = ceil_div(num_tokens, args.block_tokens);
  WorkspaceParts parts(workspace);
  take_parts(parts, config, num_tokens, args);
  if (args.capacity >= num_tokens * config.top_k) args.group_keys = nullptr;
  launches.sort_large();
}

}  // namespace switchyard::cuda

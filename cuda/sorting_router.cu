#include "cuda/sorting_router.h"

#include <algorithm>
#include <bit>

#include "cuda/assignment_sort.h"
#include "cuda/permutation_checks.h"
#include "cuda/routing_launcher.h"
#include "cuda/sorting_router_kernels.cuh"
#include "cuda/sorting_router_kernels.h"
#include "cuda/workspace_parts.h"
#include "switchyard/router_backend.h"

namespace switchyard::cuda {
namespace {

constexpr KernelChoice<RouteTask, SortArgs> kKernels[] = {
    {1, route_and_sort_kernel<1>},   {2, route_and_sort_kernel<2>},
    {4, route_and_sort_kernel<4>},   {8, route_and_sort_kernel<8>},
    {16, route_and_sort_kernel<16>}, {32, route_and_sort_kernel<32>},
    {64, route_and_sort_kernel<64>}};

// What one launch takes where there are clusters. The sort's 16-bit places hold more; beyond it
// routing on so few multiprocessors takes longer than the launches that it saves.
constexpr int64_t kMaxAssignments = 8192;
// Rows of the permutation, padding included, that a block should write.
constexpr int64_t kBlockRows = 16384;
// Tokens that one block routes and sorts in one launch where there are none. More are better spread
// over the device: another warp's row takes about as long as a second, overlapping launch.
constexpr int64_t kMaxOneBlockTokens = 16;
// Few tokens need no more warps than lay out a block's experts. Where there are more blocks than a
// full one would leave idle, fewer warps share a multiprocessor's issue slots.
constexpr int kFewWarps = 8;
// Tokens that one block takes before a cluster's barriers, two and a round trip to other blocks,
// are worth it.
constexpr int64_t kOneBlockTokens = 16;

// Tokens a warp from which on their instructions are what counts: with fewer, a warp should take
// one row alone.
constexpr int64_t kShortcutTokens = 2;

constexpr unsigned kPortableClusterBlocks = 8;
constexpr unsigned kLargeClusterBlocks = 16;

int64_t static_shared_bytes(int per_lane) {
  return most_sorting_warps(per_lane) * static_cast<int64_t>(sizeof(SelectionScratch)) +
         kMaxWarps * static_cast<int64_t>(sizeof(int64_t)) + 64;
}

int64_t shared_bytes(const RouteTask& task, int64_t num_experts, int warps,
                     int64_t num_assignments) {
  const int64_t sums = ceil_div(route_tally_bytes(task), 8) * 8;
  return std::max(route_shared_bytes(task, warps),
                  sums + cluster_sort_bytes(num_experts, warps, num_assignments));
}

int64_t shared_bytes_of_few(const RouteTask& task, int64_t num_experts, int warps,
                            int64_t num_assignments) {
  return few_assignments_begin(task, warps) + FewAssignments::bytes(num_experts, num_assignments);
}

/// Routes and sorts small batches in one launch. What the device can do is asked once.
class OneLaunch {
 public:
  OneLaunch(const RouterConfig& routing, const PermutationConfig& sorting,
            const DeviceState& device)
      : sorting_(sorting),
        device_(device),
        choice_(*find_kernel(kKernels, routing.num_experts)),
        warps_(most_sorting_warps(choice_.per_lane)) {
    const int64_t most_bytes = device.attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    const int64_t limit = most_bytes - static_shared_bytes(choice_.per_lane);
    const RouteTask largest = largest_route_task(routing);
    const auto bytes = [&] {
      return std::max(
          shared_bytes(largest, sorting.num_local(), warps_, most_assignments_of_block()),
          shared_bytes_of_few(
              largest, sorting.num_local(), warps_,
              std::min(most_assignments_of_block(), int64_t{kMaxNotedTokens} * sorting.top_k)));
    };
    while (warps_ > 1 && bytes() > limit) warps_ /= 2;
    max_blocks_ = prepare(choice_.kernel, bytes(), limit);
    if (max_blocks_ == 1) return;
    const int64_t shortcut_limit = most_bytes - sorting_shortcut_static_bytes();
    for (const DataType dtype : {DataType::kFloat32, DataType::kBFloat16}) {
      const SortingShortcut* shortcut = find_sorting_shortcut(task_without_extras(routing, dtype));
      const bool fits = shortcut != nullptr && warps_ <= kShortcutSortingWarps &&
                        bytes() <= shortcut_limit &&
                        prepare(shortcut->kernel, bytes(), shortcut_limit) >= max_blocks_;
      if (fits) shortcuts_[dtype == DataType::kFloat32 ? 0 : 1] = shortcut;
    }
  }

  [[nodiscard]] bool takes(const RouteTask& task, const SortArgs& args) const {
    if (task.has_preference() || may_drop_by_weight(sorting_, args)) return false;
    const int64_t num_tokens = task.logits.rows;
    if (max_blocks_ == 1) {
      return num_tokens <= kMaxOneBlockTokens && sorts_in_one_block(sorting_, args);
    }
    return num_tokens * sorting_.top_k <= kMaxAssignments;
  }

  void enqueue(const RouteTask& task, SortArgs args, StreamView stream) const {
    const int64_t num_tokens = task.logits.rows;
    const int warps = warps_of(num_tokens);
    const unsigned blocks = blocks_of(num_tokens, warps, args.out.row_to_assignment.size);
    args.block_tokens = ceil_div(num_tokens, blocks);
    args.num_blocks = blocks;
    const Kernel kernel = kernel_for(task, args.block_tokens, warps);
    args.notes_choices = kernel == choice_.kernel && args.block_tokens <= kMaxNotedTokens;
    const auto bytes_of = args.notes_choices ? shared_bytes_of_few : shared_bytes;
    device_.check(SWITCHYARD_LAUNCH(kernel,
                                    {.grid = blocks,
                                     .block = static_cast<unsigned>(warps * kWarpSize),
                                     .shared_bytes = bytes_of(task, args.num_experts, warps,
                                                              args.block_tokens * args.top_k),
                                     .stream = stream.get(),
                                     .cluster_blocks = blocks},
                                    task, args),
                  "launch of route_and_sort_kernel");
  }

 private:
  using Kernel = void (*)(RouteTask, SortArgs);

  /// A task for which nothing but the configuration stands in a shortcut's way.
  static RouteTask task_without_extras(const RouterConfig& config, DataType dtype) {
    RouteTask task;
    task.config = config;
    task.logits = {nullptr, dtype, 1, config.num_experts, config.num_experts};
    task.group_terms = largest_route_task(config).group_terms;
    task.on_logits = selects_on_logits(config, false);
    return task;
  }

  [[nodiscard]] Kernel kernel_for(const RouteTask& task, int64_t block_tokens, int warps) const {
    if (block_tokens >= kShortcutTokens * warps) {
      const SortingShortcut* shortcut = find_sorting_shortcut(task);
      const bool is_prepared = shortcut == shortcuts_[0] || shortcut == shortcuts_[1];
      if (shortcut != nullptr && is_prepared) return shortcut->kernel;
    }
    return choice_.kernel;
  }

  /// Warps of a block.
  [[nodiscard]] int warps_of(int64_t num_tokens) const {
    const bool fill_one_block = num_tokens > kFewWarps && num_tokens <= kOneBlockTokens;
    const bool is_few = num_tokens <= int64_t{kFewWarps} * max_blocks_;
    return std::min(is_few && !fill_one_block ? kFewWarps : warps_, warps_);
  }

  /// As many blocks as give each warp one token and a block not too many rows to write.
  [[nodiscard]] unsigned blocks_of(int64_t num_tokens, int warps, int64_t num_rows) const {
    const int64_t wanted = std::max(ceil_div(num_tokens, warps), ceil_div(num_rows, kBlockRows));
    return std::bit_ceil(static_cast<unsigned>(std::clamp<int64_t>(wanted, 1, max_blocks_)));
  }

  /// Of a block in a cluster of any size.
  [[nodiscard]] int64_t most_assignments_of_block() const {
    const int64_t in_full_cluster = kMaxAssignments / kPortableClusterBlocks + sorting_.top_k;
    return std::max(in_full_cluster, int64_t{kMaxOneBlockTokens} * sorting_.top_k);
  }

  /// Lets a kernel have up to `limit` bytes of shared memory, the same for every object since the
  /// kernel has one limit for all of them. Returns the most blocks of a cluster that the device can
  /// run together with `bytes` each; 1 where there are no clusters, as for code that was compiled
  /// for older devices.
  [[nodiscard]] unsigned prepare(Kernel kernel, int64_t bytes, int64_t limit) const {
    const auto set_attribute = [&](cudaFuncAttribute attribute, int value) {
      device_.check(cudaFuncSetAttribute(kernel, attribute, value), "cudaFuncSetAttribute");
    };
    set_attribute(cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(limit));
    if (!device_.chains_launches()) return 1;  // clusters came with those
    set_attribute(cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    for (const unsigned blocks : {kLargeClusterBlocks, kPortableClusterBlocks}) {
      const NativeLaunch launch({.grid = blocks,
                                 .block = static_cast<unsigned>(warps_ * kWarpSize),
                                 .shared_bytes = bytes,
                                 .cluster_blocks = blocks});
      int clusters = 0;
      const cudaError_t status =
          cudaOccupancyMaxActiveClusters(&clusters, kernel, &launch.config());
      if (status == cudaErrorInvalidClusterSize) {
        (void)cudaGetLastError();  // an answer, not an error
        continue;
      }
      device_.check(status, "cudaOccupancyMaxActiveClusters");
      if (clusters > 0) return blocks;
    }
    return 1;
  }

  const PermutationConfig sorting_;
  const DeviceState& device_;
  const KernelChoice<RouteTask, SortArgs>& choice_;
  int warps_;                                 ///< of a block
  unsigned max_blocks_ = 1;                   ///< of a cluster
  const SortingShortcut* shortcuts_[2] = {};  ///< of float32 and bfloat16 logits, where prepared
};

class CudaSortingRouter final : public SortingRouter::Implementation {
 public:
  CudaSortingRouter(Router its_router, Permuter its_permuter, SortingLaunches launches)
      : Implementation(std::move(its_router), std::move(its_permuter)),
        launches_(launches),
        launcher_(router.config(), device_),
        one_launch_(router.config(), permuter.config(), device_) {}

  void route(const RoutingInputs& inputs, const RoutingResult& result,
             const Permutation& permutation, std::span<std::byte> workspace,
             StreamView stream) const override {
    device_.check_usable(stream);
    launcher_.check_memory(inputs, result);
    check_permutation(device_, permutation);
    device_.check_memory("workspace", workspace.empty() ? nullptr : workspace.data(),
                         WorkspaceParts::kAlignment);
    const PermutationConfig& config = permuter.config();
    const RouteTask task = launcher_.task(inputs, result);
    const SortArgs args = sort_args(config, result.expert_ids, result.gate_weights, permutation);
    if (launches_ == SortingLaunches::kFewest && one_launch_.takes(task, args)) {
      return one_launch_.enqueue(task, args, stream);
    }
    launcher_.enqueue(task, stream);
    sort_assignments(config, device_, args, workspace.data(), stream, true);
  }

 private:
  const DeviceState device_;
  const SortingLaunches launches_;
  const RoutingLauncher launcher_;
  const OneLaunch one_launch_;
};

}  // namespace

std::unique_ptr<SortingRouter::Implementation> make_cuda_sorting_router(Router router,
                                                                        Permuter permuter,
                                                                        SortingLaunches launches) {
  return std::make_unique<CudaSortingRouter>(std::move(router), std::move(permuter), launches);
}

}  // namespace switchyard::cuda

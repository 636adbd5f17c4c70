#include "cuda/sorting_router.h"

#include <algorithm>

#include "cuda/assignment_sort.h"
#include "cuda/permutation_checks.h"
#include "cuda/routing_launcher.h"
#include "cuda/sorting_router_kernels.cuh"
#include "cuda/workspace_parts.h"

namespace switchyard::cuda {
namespace {

// Tokens that one block routes and sorts in one launch, two a warp at most. More are better spread
// over the device: another warp's row takes about as long as a second, overlapping launch.
constexpr int64_t kMaxOneBlockTokens = 2 * kMaxRouteWarps;

// Larger models take two launches; each further kernel is long to compile.
constexpr KernelChoice<RouteTask, SortArgs> kKernels[] = {{1, route_and_sort_kernel<1>},
                                                          {2, route_and_sort_kernel<2>},
                                                          {4, route_and_sort_kernel<4>},
                                                          {8, route_and_sort_kernel<8>},
                                                          {16, route_and_sort_kernel<16>}};

/// What a kernel may use without being opted in, less its static part.
constexpr int64_t kMaxSharedBytes =
    48 * 1024 - kMaxRouteWarps * static_cast<int64_t>(sizeof(SelectionScratch)) -
    kMaxWarps * static_cast<int64_t>(sizeof(int64_t)) - 64;

int64_t shared_bytes(const RouteTask& task, const SortArgs& args) {
  const int64_t counters = int64_t{kMaxRouteWarps} * std::max(args.num_experts, 1);
  return std::max(route_shared_bytes(task, kMaxRouteWarps),
                  counters * static_cast<int64_t>(sizeof(uint32_t)));
}

class CudaSortingRouter final : public SortingRouter::Implementation {
 public:
  CudaSortingRouter(Router its_router, Permuter its_permuter)
      : Implementation(std::move(its_router), std::move(its_permuter)),
        launcher_(router.config(), device_),
        choice_(find_kernel(kKernels, router.config().num_experts)) {}

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
    if (fits_one_block(task, args)) return enqueue_one_block(task, args, stream);
    launcher_.enqueue(task, stream);
    sort_assignments(config, device_, args, workspace.data(), stream, true);
  }

 private:
  [[nodiscard]] bool fits_one_block(const RouteTask& task, const SortArgs& args) const {
    return choice_ != nullptr && task.logits.rows <= kMaxOneBlockTokens && !task.has_preference() &&
           sorts_in_one_block(permuter.config(), args) &&
           shared_bytes(task, args) <= kMaxSharedBytes;
  }

  void enqueue_one_block(const RouteTask& task, const SortArgs& args, StreamView stream) const {
    device_.check(SWITCHYARD_LAUNCH(choice_->kernel,
                                    {.grid = 1,
                                     .block = static_cast<unsigned>(kMaxRouteWarps * kWarpSize),
                                     .shared_bytes = shared_bytes(task, args),
                                     .stream = stream.get()},
                                    task, args),
                  "launch of route_and_sort_kernel");
  }

  const DeviceState device_;
  const RoutingLauncher launcher_;
  const KernelChoice<RouteTask, SortArgs>* const choice_;  ///< null for larger models
};

}  // namespace

std::unique_ptr<SortingRouter::Implementation> make_cuda_sorting_router(Router router,
                                                                        Permuter permuter) {
  return std::make_unique<CudaSortingRouter>(std::move(router), std::move(permuter));
}

}  // namespace switchyard::cuda

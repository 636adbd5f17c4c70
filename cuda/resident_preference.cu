#include "cuda/resident_preference.h"

#include "cuda/resident_preference_kernels.cuh"
#include "cuda/routing_launcher.h"

namespace switchyard::cuda {
namespace {

// Few, since each is long to compile and rows that are looked at twice are the exception.
constexpr KernelChoice<RouteTask, unsigned long long*> kKernels[] = {
    {2, prefer_residents_kernel<2>},
    {8, prefer_residents_kernel<8>},
    {16, prefer_residents_kernel<16>},
    {64, prefer_residents_kernel<64>}};

/// The task without the sums, which the routing before has written.
RouteTask without_sums(RouteTask task) {
  task.tokens_per_expert = task.num_degenerate_rows = task.loss_sums = nullptr;
  return task;
}

}  // namespace

ResidentPreference::ResidentPreference(const RouterConfig& config, const DeviceState& device,
                                       int num_warps)
    : device_(device), choice_(*find_kernel(kKernels, config.num_experts)), num_warps_(num_warps) {
  RouteTask task;
  task.config = config;
  task.group_terms = 1;  // with the memory that groups need
  max_blocks_ =
      resident_blocks(device_, choice_.kernel, num_warps_, route_shared_bytes(task, num_warps_));
}

void ResidentPreference::enqueue(const RouteTask& task, StreamView stream) const {
  if (task.logits.rows == 0) return;
  RouteTask rows = without_sums(task);
  rows.aligned_rows = rows_take_vectors(task.logits, choice_.per_lane < 4 ? choice_.per_lane : 4);
  const RouteGrid grid =
      route_grid(task.logits.rows, num_warps_, max_blocks_, device_.num_multiprocessors());
  device_.check(
      SWITCHYARD_LAUNCH(choice_.kernel,
                        {.grid = static_cast<unsigned>(grid.blocks),
                         .block = static_cast<unsigned>(grid.warps * kWarpSize),
                         .shared_bytes = route_shared_bytes(rows, static_cast<int>(grid.warps)),
                         .stream = stream.get()},
                        rows, task.tokens_per_expert),
      "launch of prefer_residents_kernel");
}

}  // namespace switchyard::cuda

#include "cuda/hash_routing.h"

#include <algorithm>

#include "cuda/hash_routing_kernels.cuh"
#include "cuda/routing_launcher.h"

namespace switchyard::cuda {
namespace {

/// By the logits of a row to sum up; first the one that sums none.
constexpr KernelChoice<HashTask> kKernels[] = {{0, hash_kernel<0>},   {2, hash_kernel<2>},
                                               {4, hash_kernel<4>},   {8, hash_kernel<8>},
                                               {16, hash_kernel<16>}, {64, hash_kernel<64>}};

const KernelChoice<HashTask>& kernel_for(const RouterConfig& config) {
  const bool sums_rows = config.score_function == ScoreFunction::kSoftmax && !config.renormalize;
  return *find_kernel(kKernels, sums_rows ? config.num_experts : 0);
}

class CudaHashRouter final : public HashRouter::Implementation {
 public:
  explicit CudaHashRouter(const RouterConfig& router_config)
      : Implementation(router_config, Backend::kCuda),
        choice_(kernel_for(config)),
        max_blocks_(resident_blocks(device_, choice_.kernel, kMaxRouteWarps, count_bytes())) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void route(const HashRoutingInputs& inputs, const RoutingResult& result, std::span<std::byte>,
             StreamView stream) const override {
    check_arguments(inputs, result, stream);
    HashTask task;
    task.route = {.config = config,
                  .logits = inputs.logits,
                  .expert_ids = result.expert_ids,
                  .gate_weights = result.gate_weights,
                  .tokens_per_expert = result.tokens_per_expert.empty()
                                           ? nullptr
                                           : counters(result.tokens_per_expert.data),
                  .num_degenerate_rows = counters(result.num_degenerate_rows),
                  .aligned_rows = choice_.per_lane > 0 &&
                                  rows_take_vectors(inputs.logits, std::min(choice_.per_lane, 4))};
    task.token_ids = inputs.token_ids;
    task.table = inputs.table;
    task.plain_weight = plain_hash_weight(config);
    launch_kernels(task, stream);
  }

 private:
  [[nodiscard]] int64_t count_bytes() const {
    return config.num_expert_ids() * static_cast<int64_t>(sizeof(int));
  }

  void check_arguments(const HashRoutingInputs& inputs, const RoutingResult& result,
                       StreamView stream) const {
    device_.check_usable(stream);
    check_vector(device_, "token_ids", inputs.token_ids);
    check_matrix(device_, "table", inputs.table, alignof(int32_t));
    check_tensor(device_, "logits", inputs.logits);
    check_matrix(device_, "expert_ids", result.expert_ids, alignof(int32_t));
    check_tensor(device_, "gate_weights", result.gate_weights);
    check_vector(device_, "tokens_per_expert", result.tokens_per_expert);
    device_.check_memory("num_degenerate_rows", result.num_degenerate_rows, alignof(int64_t));
  }

  void launch_kernels(HashTask task, StreamView stream) const {
    const int64_t num_tokens = task.token_ids.size;
    if (num_tokens == 0 && !task.route.has_sums()) return;
    const RouteGrid grid =
        route_grid(num_tokens, kMaxRouteWarps, max_blocks_, device_.num_multiprocessors());
    task.route.beside_clearing = clear_route_sums(device_, task.route, grid, stream);
    device_.check(SWITCHYARD_LAUNCH(choice_.kernel,
                                    {.grid = static_cast<unsigned>(grid.blocks),
                                     .block = static_cast<unsigned>(grid.warps * kWarpSize),
                                     .shared_bytes = route_shared_bytes(task.route, 1),
                                     .stream = stream.get(),
                                     .dependent = task.route.beside_clearing},
                                    task),
                  "launch of hash_kernel");
  }

  const DeviceState device_;
  const KernelChoice<HashTask>& choice_;
  const int64_t max_blocks_;
};

}  // namespace

std::unique_ptr<HashRouter::Implementation> make_cuda_hash_router(const RouterConfig& config) {
  return std::make_unique<CudaHashRouter>(config);
}

}  // namespace switchyard::cuda

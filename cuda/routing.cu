#include "cuda/routing.h"

#include <algorithm>
#include <bit>

#include "cuda/routing_kernels.cuh"
#include "cuda/routing_launcher.h"
#include "cuda/row_shortcut.h"

namespace switchyard::cuda {
namespace {

/// What a task says of groups: 0 where all of them stay.
int limited_group_terms(const RouterConfig& config) {
  return config.num_groups == config.top_groups ? 0 : group_terms(config);
}

}  // namespace

RouteTask largest_route_task(const RouterConfig& config) {
  static unsigned long long wanted = 0;
  RouteTask task;
  task.config = config;
  task.group_terms = limited_group_terms(config);
  task.tokens_per_expert = task.loss_sums = &wanted;
  return task;
}

namespace {

/// To which power of two a group is lanes, if it is.
int group_lanes(const RouterConfig& config, int per_lane) {
  const int lanes = config.num_experts / config.num_groups / per_lane;
  return static_cast<int>(std::bit_width(static_cast<unsigned>(lanes))) - (lanes > 0 ? 1 : 0);
}

/// What route_usual_row() knows: renormalised softmax and sigmoid of rows in few registers that may
/// be loaded by vectors, groups that are whole lanes, all experts enabled and none shared.
UsualRows usual_rows(const RouterConfig& config, const RoutingInputs& inputs,
                     const RoutingResult& result, int per_lane) {
  const bool knows_scores =
      config.score_function == ScoreFunction::kSoftmax
          ? config.renormalize && selects_on_logits(config, !inputs.selection_bias.empty())
          : config.score_function == ScoreFunction::kSigmoid;
  const int terms = limited_group_terms(config);
  const bool knows_groups =
      terms == 0 || (terms <= 2 && config.num_experts == (config.num_groups * per_lane)
                                                             << group_lanes(config, per_lane));
  const bool knows_row = config.top_k <= kMaxFewTopK && per_lane <= kMaxFewPerLane &&
                         rows_take_vectors(inputs.logits, std::min(per_lane, 4));
  const bool is_usual = knows_scores && knows_groups && knows_row && inputs.expert_mask.empty() &&
                        result.loss_sums.empty() && config.num_shared_experts == 0;
  if (!is_usual) return UsualRows::kNone;
  switch (inputs.logits.dtype) {
    case DataType::kFloat32:
      return UsualRows::kFloat32;
    case DataType::kFloat16:
      return UsualRows::kFloat16;
    case DataType::kBFloat16:
      break;
  }
  return UsualRows::kBFloat16;
}

constexpr KernelChoice<RouteTask> kKernels[] = {
    {1, route_kernel<1>},   {2, route_kernel<2>},   {4, route_kernel<4>},  {8, route_kernel<8>},
    {16, route_kernel<16>}, {32, route_kernel<32>}, {64, route_kernel<64>}};

/// What a kernel may use without being opted in, less its static part.
constexpr int64_t kMaxSharedBytes =
    48 * 1024 - kMaxRouteWarps * static_cast<int64_t>(sizeof(SelectionScratch)) - 64;

// Rows a multiprocessor from which on their instructions are what counts; with fewer, a warp should
// take one row alone.
constexpr int64_t kShortcutRows = 16;
// Blocks that a multiprocessor holds at most.
constexpr int64_t kShortcutBlocks = 2048 / (kMaxRouteWarps * kWarpSize);

/// Warps of a block that fit in its shared memory whatever a call wants.
int most_warps(const RouterConfig& config) {
  const RouteTask task = largest_route_task(config);
  int warps = kMaxRouteWarps;
  while (warps > 1 && route_shared_bytes(task, warps) > kMaxSharedBytes) warps /= 2;
  return warps;
}

class CudaRouter final : public Router::Implementation {
 public:
  explicit CudaRouter(const RouterConfig& router_config)
      : Implementation(router_config, Backend::kCuda), launcher_(config, device_) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void route(const RoutingInputs& inputs, const RoutingResult& result, std::span<std::byte>,
             StreamView stream) const override {
    device_.check_usable(stream);
    launcher_.check_memory(inputs, result);
    launcher_.enqueue(launcher_.task(inputs, result), stream);
  }

 private:
  const DeviceState device_;
  const RoutingLauncher launcher_;
};

}  // namespace

RoutingLauncher::RoutingLauncher(const RouterConfig& config, const DeviceState& device)
    : config_(config),
      device_(device),
      choice_(*find_kernel(kKernels, config.num_experts)),
      num_warps_(most_warps(config)),
      preference_(config, device, num_warps_) {
  max_blocks_ = resident_blocks(device_, choice_.kernel, num_warps_,
                                route_shared_bytes(largest_route_task(config), num_warps_));
}

void RoutingLauncher::check_memory(const RoutingInputs& inputs, const RoutingResult& result) const {
  const auto alignment_of = [](DataType type) { return static_cast<std::size_t>(size_of(type)); };
  device_.check_memory("logits", inputs.logits.data, alignment_of(inputs.logits.dtype));
  device_.check_memory("selection_bias", inputs.selection_bias.data, alignof(float));
  device_.check_memory("token_mask", inputs.token_mask.data, 1);
  device_.check_memory("expert_mask", inputs.expert_mask.data, 1);
  device_.check_memory("expert_ids", result.expert_ids.data, alignof(int32_t));
  device_.check_memory("gate_weights", result.gate_weights.data,
                       alignment_of(result.gate_weights.dtype));
  device_.check_memory("tokens_per_expert", result.tokens_per_expert.data, alignof(int64_t));
  device_.check_memory("num_degenerate_rows", result.num_degenerate_rows, alignof(int64_t));
  device_.check_memory("loss_sums", result.loss_sums.data, alignof(int64_t));
  device_.check_memory("resident_experts", inputs.residency.resident_experts.data, 1);
  device_.check_memory("sacrificed_mass", result.sacrificed_mass.data, alignof(float));
}

RouteTask RoutingLauncher::task(const RoutingInputs& inputs, const RoutingResult& result) const {
  return {.config = config_,
          .logits = inputs.logits,
          .bias = inputs.selection_bias.data,
          .token_mask = inputs.token_mask.data,
          .expert_mask = inputs.expert_mask.data,
          .expert_ids = result.expert_ids,
          .gate_weights = result.gate_weights,
          .tokens_per_expert = counters(result.tokens_per_expert.data),
          .num_degenerate_rows = counters(result.num_degenerate_rows),
          .loss_sums = counters(result.loss_sums.data),
          .residency = inputs.residency,
          .sacrificed_mass = result.sacrificed_mass.data,
          .on_logits = selects_on_logits(config_, !inputs.selection_bias.empty()),
          .aligned_rows = rows_take_vectors(inputs.logits, std::min(choice_.per_lane, 4)),
          .group_terms = limited_group_terms(config_),
          .group_lanes = group_lanes(config_, choice_.per_lane),
          .usual_rows = usual_rows(config_, inputs, result, choice_.per_lane)};
}

void RoutingLauncher::enqueue(RouteTask task, StreamView stream) const {
  if (task.logits.rows == 0 && !task.has_sums()) return;
  const Launch launch = launch_for(task);
  task.beside_clearing = clear_route_sums(device_, task, launch.grid, stream);
  device_.check(SWITCHYARD_LAUNCH(
                    launch.kernel,
                    {.grid = static_cast<unsigned>(launch.grid.blocks),
                     .block = static_cast<unsigned>(launch.grid.warps * kWarpSize),
                     .shared_bytes = route_shared_bytes(task, static_cast<int>(launch.grid.warps)),
                     .stream = stream.get(),
                     .dependent = task.beside_clearing},
                    task),
                "launch of route_kernel");
  if (task.has_preference()) preference_.enqueue(task, stream);
}

RoutingLauncher::Launch RoutingLauncher::launch_for(const RouteTask& task) const {
  const int64_t num_tokens = task.logits.rows;
  const int num_multiprocessors = device_.num_multiprocessors();
  if (num_tokens >= kShortcutRows * num_multiprocessors) {
    if (const RouteShortcut* shortcut = find_shortcut(task)) {
      const int64_t rows = int64_t{shortcut->rows.at_once} * kMaxRouteWarps;
      const int64_t blocks =
          std::min((num_tokens + rows - 1) / rows, kShortcutBlocks * num_multiprocessors);
      return {shortcut->kernel, {.blocks = blocks, .warps = kMaxRouteWarps}};
    }
  }
  return {choice_.kernel, route_grid(num_tokens, num_warps_, max_blocks_, num_multiprocessors)};
}

RouteGrid route_grid(int64_t num_tokens, int64_t max_warps, int64_t max_blocks,
                     int num_multiprocessors) {
  RouteGrid grid;
  grid.warps = std::clamp<int64_t>(num_tokens, 1, max_warps);
  if (num_tokens > max_warps) {
    const int64_t share = (num_tokens - 1) / num_multiprocessors + 1;
    grid.warps = std::min<int64_t>(share, max_warps);
  }
  grid.blocks = std::clamp<int64_t>((num_tokens + grid.warps - 1) / grid.warps, 1, max_blocks);
  return grid;
}

bool clear_route_sums(const DeviceState& device, const RouteTask& task, const RouteGrid& grid,
                      StreamView stream) {
  if (!task.has_sums() || grid.blocks == 1) return false;
  constexpr unsigned kBlocks = 4;
  constexpr unsigned kThreads = 512;
  device.check(
      SWITCHYARD_LAUNCH(clear_route_sums_kernel,
                        {.grid = kBlocks, .block = kThreads, .stream = stream.get()}, task),
      "launch of clear_route_sums_kernel");
  return device.chains_launches();
}

std::unique_ptr<Router::Implementation> make_cuda_router(const RouterConfig& config) {
  return std::make_unique<CudaRouter>(config);
}

}  // namespace switchyard::cuda

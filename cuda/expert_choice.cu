#include "cuda/expert_choice.h"

#include <algorithm>

#include "cuda/device_state.h"
#include "cuda/expert_choice_kernels.cuh"
#include "cuda/kernel_choice.h"
#include "cuda/workspace_parts.h"

namespace switchyard::cuda {
namespace {

constexpr KernelChoice<ExpertChoiceTask> kScoringKernels[] = {{2, score_tokens_kernel<2>},
                                                              {4, score_tokens_kernel<4>},
                                                              {8, score_tokens_kernel<8>},
                                                              {16, score_tokens_kernel<16>},
                                                              {64, score_tokens_kernel<64>}};

// Up to here few threads take several tokens each sooner than many meet at barriers.
constexpr int64_t kFewTokens = 4 * kFewChoiceThreads;

/// Lays out the workspace of a batch whose logits and outputs the task has.
void take_parts(WorkspaceParts& parts, ExpertChoiceTask& task) {
  const int64_t num_experts = task.num_experts();
  const int64_t capacity = task.capacity();
  const int64_t stride = ceil_div(task.num_tokens(), kTileTokens) * kTileTokens;
  task.keys = {parts.take<uint32_t>(num_experts * stride), num_experts, task.num_tokens(), stride};
  if (task.compares()) return;
  task.spare_keys = {parts.take<uint32_t>(num_experts * capacity), num_experts, capacity};
  task.spare_tokens = {parts.take<int32_t>(num_experts * capacity), num_experts, capacity};
}

class CudaExpertChoiceRouter final : public ExpertChoiceRouter::Implementation {
 public:
  explicit CudaExpertChoiceRouter(const ExpertChoiceConfig& choice_config)
      : Implementation(choice_config, Backend::kCuda),
        scoring_(*find_kernel(kScoringKernels, config.num_experts)) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    ExpertChoiceTask task{};
    task.logits.rows = max_tokens;
    task.logits.cols = config.num_experts;
    task.token_ids.cols = expert_choice_capacity(config, max_tokens);
    WorkspaceParts parts;
    take_parts(parts, task);
    return parts.bytes();
  }

  void route(const ExpertChoiceInputs& inputs, const ExpertChoiceResult& result,
             std::span<std::byte> workspace, StreamView stream) const override {
    device_.check_usable(stream);
    if (inputs.logits.rows == 0) return;
    check_tensor(device_, "logits", inputs.logits);
    check_vector(device_, "token_mask", inputs.token_mask);
    check_matrix(device_, "token_ids", result.token_ids, alignof(int32_t));
    check_matrix(device_, "gate_weights", result.gate_weights, alignof(float));
    device_.check_memory("workspace", workspace.data(), WorkspaceParts::kAlignment);
    ExpertChoiceTask task{};
    task.logits = inputs.logits;
    task.token_mask = inputs.token_mask.empty() ? nullptr : inputs.token_mask.data;
    task.token_ids = result.token_ids;
    task.gate_weights = result.gate_weights;
    task.over_experts = config.score == ExpertChoiceScore::kSoftmaxOverExperts;
    task.aligned_rows = rows_take_vectors(inputs.logits, std::min(scoring_.per_lane, 4));
    WorkspaceParts parts(workspace.data());
    take_parts(parts, task);
    launch_kernels(task, stream);
  }

 private:
  void launch_kernels(const ExpertChoiceTask& task, StreamView stream) const {
    const int64_t tiles = ceil_div(task.num_tokens(), kTileTokens);
    device_.check(SWITCHYARD_LAUNCH(scoring_.kernel,
                                    {.grid = static_cast<unsigned>(std::min(tiles, kMaxGridBlocks)),
                                     .block = static_cast<unsigned>(kTileTokens * kWarpSize),
                                     .stream = stream.get()},
                                    task),
                  "launch of score_tokens_kernel");
    const int threads = task.num_tokens() <= kFewTokens ? kFewChoiceThreads : kChoiceThreads;
    device_.check(SWITCHYARD_LAUNCH(choose_tokens_kernel,
                                    {.grid = static_cast<unsigned>(task.num_experts()),
                                     .block = static_cast<unsigned>(threads),
                                     .shared_bytes = choice_shared_bytes(task, threads),
                                     .stream = stream.get(),
                                     .dependent = device_.chains_launches()},
                                    task),
                  "launch of choose_tokens_kernel");
  }

  const DeviceState device_;
  const KernelChoice<ExpertChoiceTask>& scoring_;
};

}  // namespace

std::unique_ptr<ExpertChoiceRouter::Implementation> make_cuda_expert_choice_router(
    const ExpertChoiceConfig& config) {
  return std::make_unique<CudaExpertChoiceRouter>(config);
}

}  // namespace switchyard::cuda

#include "cpu/routing.h"

#include <algorithm>
#include <atomic>

#include "cpu/block_plan.h"
#include "cpu/routing_task.h"
#include "cpu/task_parts.h"
#include "cpu/threads.h"
#include "cpu/token_call.h"
#include "cpu/usual_call.h"
#include "switchyard/router_losses.h"

namespace switchyard::cpu {
namespace {

// A thread costs microseconds to wake; this many logits take about as long to route.
constexpr int64_t kLogitsPerTask = 1 << 16;
constexpr int64_t kLogitsPerPart = 1 << 11;  // at least
constexpr int64_t kTokensPerUnit = 16;       // ranges are cut where the kernels' blocks end

void add_to(int64_t* shared, const int64_t* local, int64_t size) {
  for (int64_t i = 0; i < size; ++i) {
    if (local[i] != 0) {
      std::atomic_ref<int64_t>(shared[i]).fetch_add(local[i], std::memory_order_relaxed);
    }
  }
}

class CpuRouter final : public Router::Implementation {
 public:
  CpuRouter(const RouterConfig& router_config, const CpuThreads& threads)
      : Implementation(router_config, Backend::kCpu),
        team_(threads),
        kernel_(best_route_kernel()),
        plans_(best_block_plans(router_config)),
        token_kernels_(best_token_kernels(router_config, false)),
        preferring_kernels_(best_token_kernels(router_config, true)) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void route(const RoutingInputs& inputs, const RoutingResult& result, std::span<std::byte>,
             StreamView) const override {
    const RouteTask task{config,
                         inputs.logits,
                         inputs.selection_bias.data,
                         inputs.token_mask.data,
                         inputs.expert_mask.data,
                         result.expert_ids,
                         result.gate_weights,
                         &plans_.plan(inputs.logits, inputs.selection_bias.data != nullptr,
                                      inputs.expert_mask.data != nullptr),
                         inputs.residency.is_active() ? &inputs.residency : nullptr,
                         result.sacrificed_mass.data,
                         token_kernels_.route};
    std::fill_n(result.tokens_per_expert.data, result.tokens_per_expert.size, 0);
    std::fill_n(result.loss_sums.data, result.loss_sums.size, 0);
    if (task.residency == nullptr) {
      std::fill_n(result.sacrificed_mass.data, result.sacrificed_mass.size, 0.0f);
    }

    RouteTally tally{result.tokens_per_expert.data, result.loss_sums.data, 0};
    const int64_t num_tokens = inputs.logits.rows;
    const int num_tasks = team_.num_tasks(num_tokens, tokens_per_task_);
    if (num_tasks == 1) {
      kernel_(task, 0, num_tokens, tally);
    } else {
      route_in_parallel(task, num_tasks, tally);
    }
    if (result.num_degenerate_rows != nullptr) {
      *result.num_degenerate_rows = tally.num_degenerate_rows;
    }
  }

  [[nodiscard]] bool route_usual(const RoutingInputs& inputs,
                                 const RoutingResult& result) const override {
    if (inputs.logits.rows == 1 && route_token(inputs, result)) return true;
    if (inputs.logits.rows >= one_task_below_ || !is_batch_call(config, inputs, result)) {
      return false;
    }
    const float* const bias = inputs.selection_bias.data;
    const BlockPlan& plan = plans_.plan(inputs.logits, bias != nullptr, false);
    const RouteTask task{config,
                         inputs.logits,
                         bias,
                         nullptr,
                         nullptr,
                         result.expert_ids,
                         result.gate_weights,
                         &plan,
                         nullptr,
                         nullptr,
                         token_kernels_.route};
    RouteTally tally;
    if (!result.tokens_per_expert.empty()) {
      tally.tokens_per_expert = result.tokens_per_expert.data;
      std::fill_n(tally.tokens_per_expert, result.tokens_per_expert.size, 0);
    }
    const bool in_blocks = plan.kernel != nullptr && inputs.logits.rows >= kTokensPerUnit;
    (in_blocks ? plan.kernel : kernel_)(task, 0, inputs.logits.rows, tally);
    if (result.num_degenerate_rows != nullptr) {
      *result.num_degenerate_rows = tally.num_degenerate_rows;
    }
    return true;
  }

 private:
  [[nodiscard]] bool route_token(const RoutingInputs& inputs, const RoutingResult& result) const {
    const bool prefers = inputs.residency.is_active();
    const TokenKernels& kernels = prefers ? preferring_kernels_ : token_kernels_;
    return kernels.route != nullptr && is_token_call(config, inputs, result) &&
           is_usual_preference(config, inputs.residency) &&
           cpu::route_token(kernels, config, inputs, result,
                            prefers ? &inputs.residency : nullptr) != TokenOutcome::kNotRouted;
  }

  // Integer sums, so the order in which threads finish cannot show.
  void route_in_parallel(const RouteTask& task, int num_tasks, RouteTally& tally) const {
    const int64_t least = kLogitsPerPart / config.num_experts / kTokensPerUnit;
    TaskParts parts(task.logits.rows, num_tasks, kTokensPerUnit, std::max<int64_t>(least, 1));
    team_.run(num_tasks, num_tasks, 1, [&](int64_t, int64_t, int index) {
      int64_t counts[kMaxExperts + kMaxSharedExperts];
      int64_t losses[router_loss_sums_size(kMaxExperts)];
      RouteTally local;
      if (tally.tokens_per_expert != nullptr) {
        std::fill_n(counts, config.num_expert_ids(), 0);
        local.tokens_per_expert = counts;
      }
      if (tally.loss_sums != nullptr) {
        std::fill_n(losses, router_loss_sums_size(config.num_experts), 0);
        local.loss_sums = losses;
      }
      parts.visit(index, [&](int64_t begin, int64_t end) { kernel_(task, begin, end, local); });
      if (tally.tokens_per_expert != nullptr) {
        add_to(tally.tokens_per_expert, counts, config.num_expert_ids());
      }
      if (tally.loss_sums != nullptr) {
        add_to(tally.loss_sums, losses, router_loss_sums_size(config.num_experts));
      }
      add_to(&tally.num_degenerate_rows, &local.num_degenerate_rows, 1);
    });
  }

  ThreadTeam team_;
  RouteKernel kernel_;
  BlockPlans plans_;
  TokenKernels token_kernels_;
  TokenKernels preferring_kernels_;
  int64_t tokens_per_task_ = std::max<int64_t>(kLogitsPerTask / config.num_experts, 1);
  int64_t one_task_below_ = team_.max_tasks() == 1 ? INT64_MAX : 2 * tokens_per_task_;
};

}  // namespace

std::unique_ptr<Router::Implementation> make_cpu_router(const RouterConfig& config,
                                                        const CpuThreads& threads) {
  return std::make_unique<CpuRouter>(config, threads);
}

}  // namespace switchyard::cpu

#include "cuda/row_shortcut.h"

#include "cuda/row_shortcut_kernels.cuh"

namespace switchyard::cuda {
namespace {

template <int kMaxRowExperts, typename T>
constexpr RouteShortcut threads() {
  return {rows_of_threads<kMaxRowExperts, T>(), route_threads_kernel<kMaxRowExperts, T>};
}

template <int kPerLane, typename T>
constexpr RouteShortcut half_warps() {
  return {rows_of_half_warps<kPerLane, T>(), route_half_warps_kernel<kPerLane, T>};
}

/// The first that fits is the best.
constexpr RouteShortcut kShortcuts[] = {
    threads<8, float>(),        threads<8, BFloat16>(),    threads<16, float>(),
    threads<16, BFloat16>(),    half_warps<4, float>(),    half_warps<4, BFloat16>(),
    half_warps<8, float>(),     half_warps<8, BFloat16>(), half_warps<16, float>(),
    half_warps<16, BFloat16>(), half_warps<32, float>(),   half_warps<32, BFloat16>()};

}  // namespace

bool takes(const ShortcutRows& rows, const RouteTask& task) {
  const RouterConfig& config = task.config;
  const bool plain = config.score_function == ScoreFunction::kSoftmax && config.renormalize &&
                     config.num_shared_experts == 0 && task.on_logits && task.group_terms == 0 &&
                     task.token_mask == nullptr && task.expert_mask == nullptr &&
                     task.loss_sums == nullptr;
  return plain && rows.dtype == task.logits.dtype && config.num_experts <= rows.max_experts &&
         config.top_k <= rows.max_top_k && rows_take_vectors(task.logits, rows.vector);
}

const RouteShortcut* find_shortcut(const RouteTask& task) {
  return first_shortcut(kShortcuts, task);
}

}  // namespace switchyard::cuda

#include "cuda/row_shortcut.h"

#include "cuda/row_shortcut_kernels.cuh"

namespace switchyard::cuda {
namespace {

template <int kMaxRowExperts, typename T>
constexpr RouteShortcut threads() {
  return {rows_of_threads<kMaxRowExperts, T>(), route_threads_kernel<kMaxRowExperts, T>};
}

template <int kLanes, int kGroups, typename T>
constexpr RouteShortcut lanes() {
  return {rows_of_lanes<kLanes, kGroups, T>(), route_lanes_kernel<kLanes, kGroups, T>};
}

/// The first that fits is the best.
constexpr RouteShortcut kShortcuts[] = {
    threads<8, float>(),  threads<8, BFloat16>(),  threads<16, float>(),  threads<16, BFloat16>(),
    lanes<8, 2, float>(), lanes<8, 2, BFloat16>(), lanes<8, 4, float>(),  lanes<8, 4, BFloat16>(),
    lanes<8, 8, float>(), lanes<8, 8, BFloat16>(), lanes<16, 8, float>(), lanes<16, 8, BFloat16>()};

/// Whether 32 bits are enough for numbers of rows, and for the bytes from one to the next.
bool is_narrow(const RouteTask& task) {
  constexpr int64_t kMaxStride = INT32_MAX / 4;
  return task.logits.rows <= INT32_MAX && task.logits.row_stride <= kMaxStride &&
         task.expert_ids.row_stride <= kMaxStride && task.gate_weights.row_stride <= kMaxStride;
}

}  // namespace

bool takes(const ShortcutRows& rows, const RouteTask& task) {
  const RouterConfig& config = task.config;
  const bool plain = config.score_function == ScoreFunction::kSoftmax && config.renormalize &&
                     config.num_shared_experts == 0 && task.on_logits && task.group_terms == 0 &&
                     task.token_mask == nullptr && task.expert_mask == nullptr &&
                     task.loss_sums == nullptr;
  return plain && rows.dtype == task.logits.dtype && config.num_experts <= rows.max_experts &&
         config.top_k <= rows.max_top_k && rows_take_vectors(task.logits, kShortcutVector) &&
         is_narrow(task);
}

const RouteShortcut* find_shortcut(const RouteTask& task) {
  return first_shortcut(kShortcuts, task);
}

}  // namespace switchyard::cuda

#include "cuda/row_shortcut.h"

#include "cuda/row_shortcut_kernels.cuh"

namespace switchyard::cuda {
namespace {

template <typename T>
constexpr DataType kDataType = sizeof(T) == 4 ? DataType::kFloat32 : DataType::kBFloat16;

template <int kMaxRowExperts, typename T>
constexpr RouteShortcut threads() {
  return {.dtype = kDataType<T>,
          .max_experts = kMaxRowExperts,
          .max_top_k = kMaxThreadTopK,
          .vector = 4,
          .rows_a_warp = kWarpSize,
          .kernel = route_threads_kernel<kMaxRowExperts, T>};
}

template <int kPerLane, typename T>
constexpr RouteShortcut half_warps() {
  return {.dtype = kDataType<T>,
          .max_experts = kPerLane * kHalfWarp,
          .max_top_k = kMaxHalfWarpTopK,
          .vector = HalfRowLayout<kPerLane, T>::kVector,
          .rows_a_warp = 2,
          .kernel = route_half_warps_kernel<kPerLane, T>};
}

/// The first that fits is the best.
constexpr RouteShortcut kShortcuts[] = {
    threads<8, float>(),        threads<8, BFloat16>(),    threads<16, float>(),
    threads<16, BFloat16>(),    half_warps<4, float>(),    half_warps<4, BFloat16>(),
    half_warps<8, float>(),     half_warps<8, BFloat16>(), half_warps<16, float>(),
    half_warps<16, BFloat16>(), half_warps<32, float>(),   half_warps<32, BFloat16>()};

bool fits(const RouteShortcut& shortcut, const RouteTask& task) {
  return shortcut.dtype == task.logits.dtype && task.config.num_experts <= shortcut.max_experts &&
         task.config.top_k <= shortcut.max_top_k && rows_take_vectors(task.logits, shortcut.vector);
}

}  // namespace

const RouteShortcut* find_shortcut(const RouteTask& task) {
  const RouterConfig& config = task.config;
  const bool plain = config.score_function == ScoreFunction::kSoftmax && config.renormalize &&
                     config.num_shared_experts == 0 && task.on_logits && task.group_terms == 0 &&
                     task.token_mask == nullptr && task.expert_mask == nullptr &&
                     task.loss_sums == nullptr;
  if (!plain) return nullptr;
  for (const RouteShortcut& shortcut : kShortcuts) {
    if (fits(shortcut, task)) return &shortcut;
  }
  return nullptr;
}

}  // namespace switchyard::cuda

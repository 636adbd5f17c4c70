#include "cuda/sorting_router_kernels.h"

#include "cuda/sorting_router_kernels.cuh"

namespace switchyard::cuda {
namespace {

template <int kMaxRowExperts, typename T>
constexpr SortingShortcut threads() {
  return {rows_of_threads<kMaxRowExperts, T>(), threads_and_sort_kernel<kMaxRowExperts, T>};
}

template <int kPerLane, typename T>
constexpr SortingShortcut half_warps() {
  return {rows_of_half_warps<kPerLane, T>(), half_warps_and_sort_kernel<kPerLane, T>};
}

/// The first that fits is the best.
constexpr SortingShortcut kShortcuts[] = {threads<16, float>(),    threads<16, BFloat16>(),
                                          half_warps<4, float>(),  half_warps<4, BFloat16>(),
                                          half_warps<8, float>(),  half_warps<8, BFloat16>(),
                                          half_warps<16, float>(), half_warps<16, BFloat16>(),
                                          half_warps<32, float>(), half_warps<32, BFloat16>()};

}  // namespace

const SortingShortcut* find_sorting_shortcut(const RouteTask& task) {
  return first_shortcut(kShortcuts, task);
}

int64_t sorting_shortcut_static_bytes() {
  constexpr auto kWarpBytes =
      static_cast<int64_t>(sizeof(SelectionScratch) + 2 * sizeof(HalfWarpScratch));
  return kShortcutSortingWarps * kWarpBytes + kMaxWarps * static_cast<int64_t>(sizeof(int64_t)) +
         64;
}

}  // namespace switchyard::cuda

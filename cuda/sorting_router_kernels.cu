#include "cuda/sorting_router_kernels.h"

#include "cuda/sorting_router_kernels.cuh"

namespace switchyard::cuda {
namespace {

template <int kMaxRowExperts, typename T>
constexpr SortingShortcut threads() {
  return {rows_of_threads<kMaxRowExperts, T>(), threads_and_sort_kernel<kMaxRowExperts, T>};
}

template <int kLanes, int kGroups, typename T>
constexpr SortingShortcut lanes() {
  return {rows_of_lanes<kLanes, kGroups, T>(), lanes_and_sort_kernel<kLanes, kGroups, T>};
}

/// The first that fits is the best.
constexpr SortingShortcut kShortcuts[] = {
    threads<16, float>(),  threads<16, BFloat16>(), lanes<8, 2, float>(), lanes<8, 2, BFloat16>(),
    lanes<8, 4, float>(),  lanes<8, 4, BFloat16>(), lanes<8, 8, float>(), lanes<8, 8, BFloat16>(),
    lanes<16, 8, float>(), lanes<16, 8, BFloat16>()};

}  // namespace

const SortingShortcut* find_sorting_shortcut(const RouteTask& task) {
  return first_shortcut(kShortcuts, task);
}

int64_t sorting_shortcut_static_bytes() {
  return kShortcutSortingWarps * static_cast<int64_t>(sizeof(SelectionScratch)) +
         kMaxWarps * static_cast<int64_t>(sizeof(int64_t)) + 64;
}

}  // namespace switchyard::cuda

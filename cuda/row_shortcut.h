// Kernels for large batches of which nothing is asked but renormalised softmax. They give the bits
// of route_kernel(), faster.
#pragma once

#include "cuda/routing_task.cuh"

namespace switchyard::cuda {

struct RouteShortcut {
  DataType dtype;
  int max_experts;
  int max_top_k;
  int vector;  ///< elements that are loaded at once
  int rows_a_warp;
  void (*kernel)(RouteTask);
};

/// The kernel for a task, nullptr where there is none.
const RouteShortcut* find_shortcut(const RouteTask& task);

}  // namespace switchyard::cuda

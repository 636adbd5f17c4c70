// Ways to route large batches of which nothing is asked but renormalised softmax. They give the
// bits of route_row(), faster.
#pragma once

#include <cstddef>

#include "cuda/routing_task.cuh"

namespace switchyard::cuda {

/// Logits that are loaded at once.
inline constexpr int kShortcutVector = 4;

/// The rows that one such way takes.
struct ShortcutRows {
  DataType dtype;
  int max_experts;
  int max_top_k;
  int at_once;  ///< rows of a warp
};

/// Whether nothing is asked that these rows' way does not know.
bool takes(const ShortcutRows& rows, const RouteTask& task);

template <class... Arguments>
struct RowShortcut {
  ShortcutRows rows;
  void (*kernel)(RouteTask, Arguments...);
};

/// The first of a table for a task, nullptr where there is none.
template <class Shortcut, std::size_t kCount>
const Shortcut* first_shortcut(const Shortcut (&shortcuts)[kCount], const RouteTask& task) {
  for (const Shortcut& shortcut : shortcuts) {
    if (takes(shortcut.rows, task)) return &shortcut;
  }
  return nullptr;
}

using RouteShortcut = RowShortcut<>;

/// The kernel that routes a task like route_kernel(), nullptr where there is none.
const RouteShortcut* find_shortcut(const RouteTask& task);

}  // namespace switchyard::cuda

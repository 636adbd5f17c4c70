// The kernels that route by a shortcut and sort in one launch, apart from the others for the
// compiler's sake.
#pragma once

#include "cuda/assignment_sort.h"
#include "cuda/row_shortcut.h"

namespace switchyard::cuda {

using SortingShortcut = RowShortcut<SortArgs>;

/// The kernel that does for a task what route_and_sort_kernel() does, nullptr where there is none.
const SortingShortcut* find_sorting_shortcut(const RouteTask& task);

/// Bytes of static shared memory, of any of them at most.
int64_t sorting_shortcut_static_bytes();

}  // namespace switchyard::cuda

// The CUDA backend's routing and sorting in one call.
#pragma once

#include <memory>

#include "switchyard/sorting_router_backend.h"

namespace switchyard::cuda {

/// How many launches a call may take. Benchmarks compare them; the result is the same.
enum class SortingLaunches {
  kFewest,   ///< one where the batch is small enough
  kSeveral,  ///< always the chain of larger batches
};

/// For the device that is current now; `router` and `permuter` are of this backend. Checks and
/// throws as theirs do, before anything is enqueued.
/// @throws Unavailable  when there is no CUDA device.
/// @throws CudaError    when it cannot be asked what it runs together.
std::unique_ptr<SortingRouter::Implementation> make_cuda_sorting_router(
    Router router, Permuter permuter, SortingLaunches launches = SortingLaunches::kFewest);

}  // namespace switchyard::cuda

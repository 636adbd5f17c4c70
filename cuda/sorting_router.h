// The CUDA backend's routing and sorting in one call.
#pragma once

#include <memory>

#include "switchyard/sorting_router_backend.h"

namespace switchyard::cuda {

/// For the device that is current now; `router` and `permuter` are of this backend. Checks and
/// throws as theirs do, before anything is enqueued.
/// @throws Unavailable  when there is no CUDA device.
std::unique_ptr<SortingRouter::Implementation> make_cuda_sorting_router(Router router,
                                                                        Permuter permuter);

}  // namespace switchyard::cuda

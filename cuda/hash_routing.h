// The CUDA backend's hash routing.
#pragma once

#include <memory>

#include "switchyard/hash_routing_backend.h"

namespace switchyard::cuda {

/// Routes on the device that is current now. Calls enqueue on their stream and return. Ids are read
/// on the device only, where nothing can be thrown; what becomes of bad ones is told at HashRouter.
/// @throws Unavailable  when there is no CUDA device.
std::unique_ptr<HashRouter::Implementation> make_cuda_hash_router(const RouterConfig& config);

}  // namespace switchyard::cuda

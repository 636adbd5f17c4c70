// The CUDA backend's router.
#pragma once

#include <memory>

#include "switchyard/router_backend.h"

namespace switchyard::cuda {

/// Routes on the device that is current now.
/// @throws Unavailable  when there is no CUDA device.
std::unique_ptr<Router::Implementation> make_cuda_router(const RouterConfig& config);

}  // namespace switchyard::cuda

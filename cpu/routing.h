// The vectorised CPU backend's router.
#pragma once

#include <memory>

#include "switchyard/router_backend.h"

namespace switchyard::cpu {

std::unique_ptr<Router::Implementation> make_cpu_router(const RouterConfig& config,
                                                        const CpuThreads& threads);

}  // namespace switchyard::cpu

#include "cpu/routing.h"

#include "cpu/reference/routing.h"

namespace switchyard::cpu {

std::unique_ptr<Router::Implementation> make_cpu_router(const RouterConfig& config,
                                                        const CpuThreads&) {
  return reference::make_router(config);
}

}  // namespace switchyard::cpu

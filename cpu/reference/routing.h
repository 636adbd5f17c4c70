// The definition of right for routing: serial and plain.
#pragma once

#include <memory>

#include "switchyard/router_backend.h"

namespace switchyard::cpu::reference {

std::unique_ptr<Router::Implementation> make_router(const RouterConfig& config);

}  // namespace switchyard::cpu::reference

// The definition of right for hash routing: serial and plain.
#pragma once

#include <memory>

#include "switchyard/hash_routing_backend.h"

namespace switchyard::cpu::reference {

std::unique_ptr<HashRouter::Implementation> make_hash_router(const RouterConfig& config);

}  // namespace switchyard::cpu::reference

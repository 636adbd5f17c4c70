// The definition of right for hash routing: serial and plain.
#pragma once

#include "cpu/hash_routing.h"

namespace switchyard::cpu::reference {

void look_up_experts(const HashRoutingCall& call);

}  // namespace switchyard::cpu::reference

// The definition of right for expert affinity: serial and plain.
#pragma once

#include <memory>

#include "switchyard/expert_affinity_backend.h"

namespace switchyard::cpu::reference {

std::unique_ptr<ExpertAffinity::Implementation> make_affinity(const ExpertAffinityConfig& config);

}  // namespace switchyard::cpu::reference

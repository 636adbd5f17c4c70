// Expert affinity on the CPU, lock-free for any number of threads.
#pragma once

#include <memory>

#include "switchyard/expert_affinity_backend.h"

namespace switchyard::cpu {

std::unique_ptr<ExpertAffinity::Implementation> make_cpu_affinity(
    const ExpertAffinityConfig& config);

}  // namespace switchyard::cpu

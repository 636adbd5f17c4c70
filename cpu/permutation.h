// The vectorised CPU backend's permutation.
#pragma once

#include <memory>

#include "switchyard/permuter_backend.h"

namespace switchyard::cpu {

std::unique_ptr<Permuter::Implementation> make_cpu_permuter(const PermutationConfig& config,
                                                            const CpuThreads& threads);

}  // namespace switchyard::cpu

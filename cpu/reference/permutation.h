// The definition of right for permutations: serial and plain.
#pragma once

#include <memory>

#include "switchyard/permuter_backend.h"

namespace switchyard::cpu::reference {

std::unique_ptr<Permuter::Implementation> make_permuter(const PermutationConfig& config);

}  // namespace switchyard::cpu::reference

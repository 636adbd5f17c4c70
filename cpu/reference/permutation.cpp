#include "cpu/reference/permutation.h"

namespace switchyard::cpu::reference {

std::unique_ptr<Permuter::Implementation> make_permuter(const PermutationConfig&) {
  return nullptr;
}

}  // namespace switchyard::cpu::reference

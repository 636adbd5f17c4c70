#include "cpu/permutation.h"

namespace switchyard::cpu {

std::unique_ptr<Permuter::Implementation> make_cpu_permuter(const PermutationConfig&,
                                                            const CpuThreads&) {
  return nullptr;
}

}  // namespace switchyard::cpu

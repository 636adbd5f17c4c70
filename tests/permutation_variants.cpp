// What the permutation tests run on without a device.
#include "tests/backend_variants.h"
#include "tests/permutation_case.h"

namespace switchyard::test {

const std::vector<PermuterVariant>& permuter_variants() {
  static const std::vector<PermuterVariant> kVariants = [] {
    std::vector<PermuterVariant> all{reference_variant()};
    for (const BackendVariant& cpu : backend_variants()) {
      all.push_back({cpu.name, Backend::kCpu, cpu.target, cpu.threads});
    }
    return all;
  }();
  return kVariants;
}

const std::vector<PermuterVariant>& sorting_variants() {
  static const std::vector<PermuterVariant> kVariants = [] {
    std::vector<PermuterVariant> all{reference_variant(),
                                     {"cpu, 2 threads of its own", Backend::kCpu, 0, {2, nullptr}}};
    const int64_t first = backend_variants().front().target;
    for (const BackendVariant& cpu : backend_variants()) {
      if (cpu.target != first) continue;
      const int num_threads = cpu.threads.num_threads;
      all.push_back({"cpu, " + std::to_string(num_threads), Backend::kCpu, 0, cpu.threads});
    }
    return all;
  }();
  return kVariants;
}

std::unique_ptr<PermuterRoute> make_route(const PermuterVariant& variant,
                                          const PermutationConfig& config) {
  return host_route(variant, config);
}

}  // namespace switchyard::test

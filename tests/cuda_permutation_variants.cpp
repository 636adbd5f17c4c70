// What the permutation tests run on where there is a GPU.
#include "tests/simt/device_route.h"

namespace switchyard::test {

const std::vector<PermuterVariant>& permuter_variants() {
  static const std::vector<PermuterVariant> kVariants{{"cuda", Backend::kCuda, 0, {}}};
  return kVariants;
}

const std::vector<PermuterVariant>& sorting_variants() { return permuter_variants(); }

std::unique_ptr<PermuterRoute> make_route(const PermuterVariant& variant,
                                          const PermutationConfig& config) {
  if (variant.backend != Backend::kCuda) return host_route(variant, config);
  return std::make_unique<DeviceRoute>(config);
}

}  // namespace switchyard::test

// The CUDA backend on the executor is what a program tests: threads in random order, so that a
// kernel that depends on an order meets another one.
#include "tests/backend_variants.h"

#include "tests/simt/settings.h"

namespace switchyard::test {

const std::vector<BackendVariant>& backend_variants() {
  static const std::vector<BackendVariant> kVariants = [] {
    simt::settings().order = simt::Order::kRandom;
    simt::settings().hide_device_memory = false;  // these tests share all memory with the host
    return std::vector<BackendVariant>{{"simt", Backend::kCuda, 0, {}}};
  }();
  return kVariants;
}

}  // namespace switchyard::test

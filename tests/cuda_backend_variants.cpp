// The CUDA backend on the machine's GPU is what a program tests; without a GPU it says so and
// skips.
#include <gtest/gtest.h>

#include "switchyard/build_info.h"
#include "tests/backend_variants.h"

namespace switchyard::test {
namespace {

class NeedsGpu final : public ::testing::Environment {
 public:
  void SetUp() override {
    const BuildInfo info = build_info();
    if (info.gpus.empty()) GTEST_SKIP() << info.gpu_note;
  }
};

const auto* const kNeedsGpu = ::testing::AddGlobalTestEnvironment(new NeedsGpu);

}  // namespace

const std::vector<BackendVariant>& backend_variants() {
  static const std::vector<BackendVariant> kVariants{{"cuda", Backend::kCuda, 0, {}}};
  return kVariants;
}

}  // namespace switchyard::test

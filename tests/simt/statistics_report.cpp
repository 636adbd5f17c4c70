// Says at the end of a test program what the executor has run.
#include <gtest/gtest.h>

#include <iostream>

#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

class StatisticsReport final : public ::testing::Environment {
 public:
  void TearDown() override {
    const simt::Statistics& ran = simt::statistics();
    std::cout << "executor: " << ran.kernels << " kernels, " << ran.launches << " launches, "
              << ran.blocks << " blocks, " << ran.threads << " threads, " << ran.barriers
              << " barriers, " << ran.warp_collectives << " warp collectives\n";
  }
};

const auto* const kReport = ::testing::AddGlobalTestEnvironment(new StatisticsReport);

}  // namespace
}  // namespace switchyard::test

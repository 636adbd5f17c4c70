// Blocks of a cluster run together, and what they do wrong to each other is caught.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/simt/address_sanitizer.h"
#include "tests/simt/cluster_kernels.h"
#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/orders.h"

namespace switchyard::test {
namespace {

using simt::FaultKind;

constexpr int kThreads = 64;

/// How the plain build, AddressSanitizer and the race build see a mistake; nothing where they
/// cannot. AddressSanitizer ends the program at what it sees by itself.
struct PlantedFault {
  std::string kernel;
  std::optional<FaultKind> plain;
  std::optional<FaultKind> races;
  bool dies = false;
};

void PrintTo(const PlantedFault& planted, std::ostream* out) { *out << planted.kernel; }

PlantedFault seen_by_all(const char* kernel, FaultKind kind) { return {kernel, kind, kind}; }

PlantedFault seen_by_races(const char* kernel, FaultKind kind) { return {kernel, {}, kind}; }

PlantedFault seen_as_bounds(const char* kernel) {
  return {kernel, FaultKind::kSharedBounds, FaultKind::kInvalidAccess, true};
}

class SimtClusterFaults : public testing::TestWithParam<PlantedFault> {
 protected:
  SimtClusterFaults() { simt::reset(); }
  ~SimtClusterFaults() override { simt::reset(); }

  static cudaError_t run(const std::string& kernel) {
    const DeviceArray<int> out(std::vector<int>(8 * kThreads));
    const cudaError_t error = launch_cluster(kernel, {}, {.out = out.data()});
    return error != cudaSuccess ? error : cudaDeviceSynchronize();
  }

  simt::ScopedSettings scope_;
};

INSTANTIATE_TEST_SUITE_P(
    Planted, SimtClusterFaults,
    testing::Values(seen_by_all("block_exits", FaultKind::kBarrierDivergence),
                    seen_by_all("thread_exits", FaultKind::kBarrierDivergence),
                    seen_by_all("two_arrivals", FaultKind::kBarrierDivergence),
                    seen_by_all("unequal_barriers_of_blocks", FaultKind::kBarrierDivergence),
                    seen_by_all("arrives_twice", FaultKind::kBarrierDivergence),
                    seen_by_all("waits_without_arrival", FaultKind::kBarrierDivergence),
                    seen_by_all("cluster_and_block_wait", FaultKind::kBarrierDivergence),
                    seen_by_all("before_first_barrier", FaultKind::kInvalidAccess),
                    seen_by_all("after_end", FaultKind::kInvalidAccess),
                    seen_as_bounds("beyond_other"), seen_as_bounds("beyond_other_dynamic"),
                    seen_by_all("no_such_rank", FaultKind::kInvalidAccess),
                    seen_by_all("not_shared", FaultKind::kInvalidAccess),
                    seen_by_races("writes_other_beside_owner", FaultKind::kRace),
                    seen_by_races("writes_after_arrival", FaultKind::kRace),
                    seen_by_races("reads_unwritten_other", FaultKind::kUninitialized),
                    seen_by_races("device_memory_without_barrier", FaultKind::kRace),
                    seen_by_races("device_memory_of_another_cluster", FaultKind::kRace)),
    [](const auto& planted) { return planted.param.kernel; });

TEST_P(SimtClusterFaults, AreCaughtInEveryOrder) {
  const PlantedFault& planted = GetParam();
  if (planted.dies && simt::kHasAddressSanitizer) {
    EXPECT_DEATH(run(planted.kernel), "AddressSanitizer");
    return;
  }
  const std::optional<FaultKind> kind = simt::sees_accesses() ? planted.races : planted.plain;
  for (const NamedSettings& order : kernel_orders()) {
    SCOPED_TRACE(order.name);
    simt::settings() = order.settings;
    simt::reset();
    const cudaError_t error = run(planted.kernel);
    if (!kind) {
      EXPECT_EQ(error, cudaSuccess) << simt::last_fault()->what();
      continue;
    }
    ASSERT_NE(error, cudaSuccess);
    const std::string text = simt::last_fault()->what();
    EXPECT_EQ(simt::last_fault()->kind(), *kind) << text;
    EXPECT_NE(text.find(planted.kernel), std::string::npos) << text;
  }
}

class SimtClusters : public testing::TestWithParam<NamedSettings> {
 protected:
  SimtClusters() : scope_(GetParam().settings) { simt::reset(); }

  simt::ScopedSettings scope_;
};

INSTANTIATE_TEST_SUITE_P(Orders, SimtClusters, testing::ValuesIn(kernel_orders()),
                         [](const auto& order) { return order.param.name; });

TEST_P(SimtClusters, ExchangeValuesBetweenBarriers) {
  require_success(allow_large_clusters(true));
  for (const int size : {1, 2, 4, 8, 16}) {
    const int num_blocks = 2 * size;
    const DeviceArray<int> out(std::vector<int>(static_cast<size_t>(num_blocks * kThreads)));
    const ClusterLaunch launch{.num_blocks = num_blocks, .cluster_blocks = size};
    require_success(launch_cluster("exchange", launch, {.out = out.data()}));
    const std::vector<int> got = out.download();
    for (int i = 0; i < num_blocks * kThreads; ++i) {
      const int first = i / kThreads / size * size;
      EXPECT_EQ(got[static_cast<size_t>(i)], size * (first + 1) + size * (size - 1) / 2) << size;
    }
  }
  require_success(allow_large_clusters(false));
}

TEST_P(SimtClusters, WaitForEachOther) {
  const DeviceArray<int> out(std::vector<int>(4 * kThreads));
  require_success(launch_cluster("wait_for_other", {}, {.out = out.data()}));
  EXPECT_EQ(out.download(), std::vector<int>(4 * kThreads, 1));
}

class SimtClusterLaunches : public testing::Test {
 protected:
  SimtClusterLaunches() { simt::reset(); }
  ~SimtClusterLaunches() override {
    static_cast<void>(allow_large_clusters(false));
    simt::reset();
  }

  static cudaError_t launch(int num_blocks, int cluster_blocks) {
    const DeviceArray<int> out(std::vector<int>(static_cast<size_t>(num_blocks * kThreads)));
    return launch_cluster("exchange", {.num_blocks = num_blocks, .cluster_blocks = cluster_blocks},
                          {.out = out.data()});
  }

  simt::ScopedSettings scope_;
};

TEST_F(SimtClusterLaunches, MustDivideTheGrid) {
  EXPECT_EQ(launch(8, 3), cudaErrorInvalidClusterSize);
  EXPECT_EQ(std::string(simt::last_fault()->what()),
            "clusters of 3 blocks in a grid of 8; they must divide it and have at most 8");
  EXPECT_EQ(launch(9, 3), cudaSuccess);
}

TEST_F(SimtClusterLaunches, HaveEightBlocksOrSixteenWhereOptedIn) {
  EXPECT_EQ(launch(8, 8), cudaSuccess);
  EXPECT_EQ(launch(16, 16), cudaErrorInvalidClusterSize);
  require_success(allow_large_clusters(true));
  EXPECT_EQ(launch(16, 16), cudaSuccess);
  EXPECT_EQ(launch(32, 32), cudaErrorInvalidClusterSize);
}

TEST_F(SimtClusterLaunches, HaveNoMoreBlocksThanTheDeviceRunsTogether) {
  require_success(allow_large_clusters(true));
  simt::settings().max_cluster_blocks = 4;
  EXPECT_EQ(launch(16, 8), cudaErrorInvalidClusterSize);
  int num_clusters = -1;
  EXPECT_EQ(count_clusters({.num_blocks = 8, .cluster_blocks = 8}, &num_clusters),
            cudaErrorInvalidClusterSize);
  EXPECT_EQ(num_clusters, 0);
  EXPECT_EQ(count_clusters({.num_blocks = 8, .cluster_blocks = 4}, &num_clusters), cudaSuccess);
  EXPECT_EQ(num_clusters, 1);
}

TEST_F(SimtClusterLaunches, NeedComputeCapability90) {
  simt::settings().compute_capability = 89;
  EXPECT_EQ(launch(8, 2), cudaErrorNotSupported);
  EXPECT_EQ(launch(8, 1), cudaSuccess);
}

TEST_F(SimtClusterLaunches, FaultsSayWhichBlockWaits) {
  const DeviceArray<int> out(std::vector<int>(4 * kThreads));
  EXPECT_EQ(launch_cluster("thread_exits", {}, {.out = out.data()}), cudaErrorLaunchFailure);
  const std::string text = simt::last_fault()->what();
  EXPECT_NE(text.find("of block (0,0,0)"), std::string::npos) << text;
  EXPECT_NE(text.find("arrive_at_cluster() at cluster_kernels.cu:"), std::string::npos) << text;
}

}  // namespace
}  // namespace switchyard::test

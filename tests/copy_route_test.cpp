#include "nccl/copy_route.h"

#include <gtest/gtest.h>

namespace switchyard::nccl {
namespace {

constexpr int64_t kBytes = 1 << 20;
constexpr double kFast = 50e-6;
constexpr double kSlow = 500e-6;

TEST(CopyRoute, GoesThroughTheCachesWhereThatIsQuick) {
  CopyRoute route;
  for (int turn = 0; turn < 1000; ++turn) {
    ASSERT_FALSE(route.passes_caches(kBytes));
    route.learn(kBytes, kFast);
  }
}

TEST(CopyRoute, PassesThemWithMoreThanTheyHold) {
  CopyRoute route;
  EXPECT_TRUE(route.passes_caches(int64_t{2} << 20));
}

TEST(CopyRoute, PassesThemAfterFourSlowTurns) {
  CopyRoute route;
  for (int turn = 0; turn < 4; ++turn) {
    EXPECT_FALSE(route.passes_caches(kBytes));
    route.learn(kBytes, kSlow);
  }
  EXPECT_TRUE(route.passes_caches(kBytes));
  EXPECT_TRUE(route.passes_caches(1));
}

TEST(CopyRoute, SlowTurnsFarFromEachOtherAreChance) {
  CopyRoute route;
  for (int turn = 0; turn < 10; ++turn) {
    for (int slow = 0; slow < 3; ++slow) route.learn(kBytes, kSlow);
    route.learn(kBytes, kFast);
    EXPECT_FALSE(route.passes_caches(kBytes));
  }
}

TEST(CopyRoute, ShortTurnsTellNothing) {
  CopyRoute route;
  for (int turn = 0; turn < 10; ++turn) route.learn(100, kSlow);
  EXPECT_FALSE(route.passes_caches(kBytes));
}

/// Turns until the caches are tried again.
int turns_past(CopyRoute& route) {
  int turns = 0;
  while (route.passes_caches(kBytes)) ++turns;
  return turns;
}

TEST(CopyRoute, TriesTheCachesNowAndThen) {
  CopyRoute route;
  for (int turn = 0; turn < 4; ++turn) route.learn(kBytes, kSlow);
  for (int trial = 0; trial < 3; ++trial) {
    EXPECT_EQ(turns_past(route), 127);
    route.learn(kBytes, kSlow);
  }
  EXPECT_EQ(turns_past(route), 127);
  route.learn(kBytes, kFast);
  EXPECT_EQ(turns_past(route), 0);
}

}  // namespace
}  // namespace switchyard::nccl

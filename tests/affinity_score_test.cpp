// The fixed-point arithmetic of affinity against exact and float64 arithmetic.
#include "switchyard/affinity_score.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>

#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

constexpr uint64_t kOne = uint64_t{1} << 32;

TEST(AffinityRule, DecayIsExactFromTwoToTheMinusEight) {
  EXPECT_EQ(make_affinity_rule(1.0f, 1.0f, 1.0f).decay, kOne);
  EXPECT_EQ(make_affinity_rule(0x1.fffffep-1f, 1.0f, 1.0f).decay, kOne - 256);
  EXPECT_EQ(make_affinity_rule(0x1.000002p-8f, 1.0f, 1.0f).decay, (uint64_t{1} << 24) + 2);
  EXPECT_EQ(make_affinity_rule(0x1.8p-32f, 1.0f, 1.0f).decay, 2u);
  EXPECT_EQ(make_affinity_rule(FLT_TRUE_MIN, 1.0f, 1.0f).decay, 0u);
  EXPECT_EQ(make_affinity_rule(0.0f, 1.0f, 1.0f).decay, 0u);
}

TEST(AffinityRule, BoostIsAShareOfMaxScore) {
  EXPECT_EQ(make_affinity_rule(1.0f, 1.0f, 1.0f).boost, kMaxAffinityUnits);
  EXPECT_EQ(make_affinity_rule(1.0f, 1.0f, 2.0f).boost, 0x80000000u);
  EXPECT_EQ(make_affinity_rule(1.0f, FLT_MAX, FLT_TRUE_MIN).boost, kMaxAffinityUnits);
  EXPECT_EQ(make_affinity_rule(1.0f, FLT_TRUE_MIN, FLT_MAX).boost, 1u);
  EXPECT_EQ(make_affinity_rule(1.0f, 0.0f, 1.0f).boost, 0u);
  EXPECT_EQ(make_affinity_rule(1.0f, 1.0f, 0.0f).boost, 0u);
}

TEST(AffinityRule, DecayLowersEveryScoreUnlessItIsOne) {
  const AffinityRule slow = make_affinity_rule(0x1.fffffep-1f, 0.0f, 1.0f);
  const AffinityRule none = make_affinity_rule(1.0f, 0.0f, 1.0f);
  RandomStream random(1);
  for (int i = 0; i < 1000; ++i) {
    const uint32_t units = random.bits32() >> random.below(32);
    EXPECT_EQ(decayed_units(slow, units) < units, units != 0);
    EXPECT_EQ(decayed_units(none, units), units);
  }
}

TEST(AffinityRule, ActivationsStopAtTheMost) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(added_activations(5, 7), 12);
  EXPECT_EQ(added_activations(kMost - 7, 7), kMost);
  EXPECT_EQ(added_activations(kMost - 7, 8), kMost);
  EXPECT_EQ(added_activations(kMost, std::numeric_limits<uint64_t>::max()), kMost);
  EXPECT_EQ(added_activations(0, std::numeric_limits<uint64_t>::max()), kMost);
}

/// A unit of rounding an update, nothing else, stands between the scores and real numbers.
TEST(AffinityScore, StaysNearRealNumbers) {
  RandomStream random(2);
  for (const float max_score : {1.0f, 2.0f, 0.1f, 1e30f}) {
    const float decay = 0.9f;
    const AffinityRule rule = make_affinity_rule(decay, 0.07f * max_score, max_score);
    uint32_t units = 0;
    double expected = 0.0;
    for (int batch = 0; batch < 300; ++batch) {
      const auto count = static_cast<uint64_t>(random.below(4));
      units = updated_units(rule, units, count);
      expected = std::min<double>(
          max_score, decay * expected + static_cast<double>(count) * (0.07f * max_score));
      EXPECT_NEAR(affinity_score(units, max_score), expected, 1e-7 * max_score);
    }
  }
}

TEST(AffinityScore, IsMonotoneAndEndsAtMaxScore) {
  for (const float max_score : {1.0f, 3.3f, FLT_MAX, FLT_TRUE_MIN, 0.0f}) {
    EXPECT_EQ(affinity_score(0, max_score), 0.0f);
    EXPECT_EQ(affinity_score(kMaxAffinityUnits, max_score), max_score);
    float before = 0.0f;
    for (uint64_t units = 0; units <= kMaxAffinityUnits; units += 104729 * 37) {
      const float score = affinity_score(static_cast<uint32_t>(units), max_score);
      EXPECT_GE(score, before);
      EXPECT_LE(score, max_score);
      before = score;
    }
  }
}

}  // namespace
}  // namespace switchyard::test

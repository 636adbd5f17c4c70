// Expert affinity: the same bits as the reference on every backend, and what those bits should be.
#include "switchyard/expert_affinity.h"

#include <gtest/gtest.h>

#include <cfloat>
#include <limits>

#include "switchyard/affinity_score.h"
#include "tests/expert_affinity_case.h"

namespace switchyard::test {
namespace {

constexpr int64_t kMostCount = std::numeric_limits<int64_t>::max();

class Affinity : public ::testing::Test {
 protected:
  /// Runs `check` on the reference and on every backend of this program.
  template <typename Check>
  static void on_every_backend(const Check& check) {
    for (const Backend backend : affinity_backends()) {
      SCOPED_TRACE(name_of(backend));
      check(backend);
    }
  }
};

/// A random config, every now and then at its limits.
ExpertAffinityConfig random_config(int32_t num_experts, RandomStream& random) {
  constexpr float kDecays[] = {0.99f, 0.5f, 0.87f, 1.0f, 0.0f, 0x1.fffffep-1f, 1e-7f, FLT_TRUE_MIN};
  constexpr float kBoosts[] = {1.0f, 0.1f, 0.003f, 0.0f, 7.5f, 1e-12f, FLT_MAX, FLT_TRUE_MIN};
  constexpr float kMaxima[] = {1.0f, 2.0f, 0.75f, 100.0f, 0.0f, FLT_MAX, FLT_TRUE_MIN};
  return {num_experts, random.pick(kDecays), random.pick(kBoosts), random.pick(kMaxima)};
}

/// Ends a random batch, whose assignments are recorded, given as counts, or both.
void random_update(ExpertAffinity& affinity, ExpertAffinity& reference, RandomStream& random) {
  const int32_t num_experts = affinity.config().num_experts;
  const int64_t num_tokens = random.pick(std::vector<int64_t>{0, 1, 3, 40, 500});
  const AffinityBatch batch(num_experts, num_tokens, random.below(9), random.below(3), random);
  const AffinityBatch other(num_experts, random.below(30), 2, 0, random);
  BackendVector<int64_t> counts = other.counts(num_experts);
  if (random.chance(20)) counts[static_cast<size_t>(random.below(num_experts))] = kMostCount;
  const bool records = random.chance(70);
  const bool gives = random.chance(50);
  for (ExpertAffinity* each : {&affinity, &reference}) {
    if (records) each->record(batch.view());
    if (gives) {
      each->update(view_of(counts));
    } else {
      each->update();
    }
  }
  finish_backends();
}

TEST(AffinityConformance, Contract4_SameBitsAsTheReference) {
  for (const int32_t num_experts : {1, 2, 31, 64, 129, 256, 1000, 4096}) {
    for (const Backend backend : affinity_backends()) {
      if (backend == Backend::kReference) continue;
      for (uint64_t seed = 1; seed <= 25; ++seed) {
        RandomStream random(seed);
        const ExpertAffinityConfig config = random_config(num_experts, random);
        SCOPED_TRACE(testing::Message() << name_of(backend) << ", E " << num_experts << ", seed "
                                        << seed << ", decay " << config.decay << ", boost "
                                        << config.activation_boost << ", max " << config.max_score);
        ExpertAffinity affinity(config, backend);
        ExpertAffinity reference(config, Backend::kReference);
        for (int batch = 0; batch < 6; ++batch) {
          random_update(affinity, reference, random);
          ASSERT_EQ(units_of(affinity), units_of(reference)) << "batch " << batch;
          ASSERT_EQ(activations_of(affinity), activations_of(reference)) << "batch " << batch;
        }
      }
    }
  }
}

TEST_F(Affinity, Contract4_HowABatchIsSplitDoesNotShow) {
  on_every_backend([](Backend backend) {
    const ExpertAffinityConfig config{.num_experts = 40, .activation_boost = 0.01f};
    RandomStream random(5);
    const AffinityBatch batch(40, 300, 6, 1, random);
    ExpertAffinity whole(config, backend);
    ExpertAffinity parts(config, backend);
    ExpertAffinity counted(config, backend);
    const BackendVector<int64_t> counts = batch.counts(40);
    for (int repeat = 0; repeat < 3; ++repeat) {
      whole.record(batch.view());
      whole.update();
      parts.record(batch.rows(200, 300));
      for (int64_t token = 0; token < 7; ++token) parts.record(batch.rows(token, token + 1));
      parts.record(batch.rows(7, 200));
      parts.update();
      counted.update(view_of(counts));
    }
    EXPECT_EQ(units_of(parts), units_of(whole));
    EXPECT_EQ(units_of(counted), units_of(whole));
    EXPECT_EQ(activations_of(parts), activations_of(whole));
    EXPECT_EQ(activations_of(counted), activations_of(whole));
  });
}

TEST_F(Affinity, ScoresFollowTheFormula) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({3, 0.5f, 0.25f, 2.0f}, backend);
    affinity.record(AffinityBatch({0, 1, 0, -1}, 2).view());
    affinity.update();
    finish_backends();
    EXPECT_EQ(scores_of(affinity), (std::vector<float>{0.5f, 0.25f, 0.0f}));
    const BackendVector<int64_t> counts{1, 100, 0, 5};  // the last one is nobody's here
    affinity.record(AffinityBatch({2}, 1).view());
    affinity.update(view_of(counts));
    finish_backends();
    EXPECT_EQ(scores_of(affinity), (std::vector<float>{0.5f, 2.0f, 0.25f}));
    EXPECT_EQ(activations_of(affinity), (std::vector<int64_t>{3, 101, 1}));
  });
}

TEST_F(Affinity, ABatchDecaysOnceWhateverItsSize) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({2, 0.5f, 1.0f, 1.0f}, backend);
    const BackendVector<int64_t> first{0, 1};
    affinity.update(view_of(first));
    const BackendVector<int64_t> large{1'000'000, 0};
    affinity.update(view_of(large));
    EXPECT_EQ(scores_of(affinity), (std::vector<float>{1.0f, 0.5f}));
  });
}

TEST_F(Affinity, ADecayOfOneLosesNothing) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({3, 1.0f, 1e-9f, 1.0f}, backend);
    const BackendVector<int64_t> counts{1, 12345, kMostCount};
    affinity.update(view_of(counts));
    const std::vector<uint32_t> before = units_of(affinity);
    EXPECT_EQ(before, (std::vector<uint32_t>{4, 4 * 12345, kMaxAffinityUnits}));
    for (int batch = 0; batch < 500; ++batch) affinity.update();
    EXPECT_EQ(units_of(affinity), before);
  });
}

TEST_F(Affinity, ScoresReachZero) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({2, 0.95f, 1.0f, 1.0f}, backend);
    affinity.record(AffinityBatch({0}, 1).view());
    affinity.update();
    for (int batch = 0; batch < 600; ++batch) affinity.update();
    EXPECT_EQ(units_of(affinity), (std::vector<uint32_t>{0, 0}));
    EXPECT_EQ(activations_of(affinity), (std::vector<int64_t>{1, 0}));
    // The slowest decay there is still takes a unit a batch.
    ExpertAffinity slow({1, 0x1.fffffep-1f, 1e-30f, 1.0f}, backend);
    const BackendVector<int64_t> counts{200};
    slow.update(view_of(counts));
    EXPECT_EQ(units_of(slow), (std::vector<uint32_t>{200}));
    for (int batch = 0; batch < 199; ++batch) slow.update();
    EXPECT_EQ(units_of(slow), (std::vector<uint32_t>{1}));
    slow.update();
    EXPECT_EQ(units_of(slow), (std::vector<uint32_t>{0}));
  });
}

TEST_F(Affinity, AnyCountSaturates) {
  on_every_backend([](Backend backend) {
    for (const float boost : {FLT_TRUE_MIN, 1e-9f, 0.3f, 1.0f, FLT_MAX}) {
      ExpertAffinity affinity({4, 1.0f, boost, 1.0f}, backend);
      const BackendVector<int64_t> counts{kMostCount, int64_t{1} << 32, kMaxAffinityUnits, 0};
      for (int batch = 0; batch < 3; ++batch) {
        affinity.record(AffinityBatch({0, 3}, 1).view());
        affinity.update(view_of(counts));
        finish_backends();
      }
      const std::vector<float> scores = scores_of(affinity);
      EXPECT_EQ(scores[0], 1.0f) << boost;
      EXPECT_EQ(scores[1], 1.0f) << boost;
      EXPECT_EQ(scores[2], 1.0f) << boost;
      EXPECT_GT(scores[3], 0.0f) << boost;
      const std::vector<int64_t> sums{kMostCount, int64_t{3} << 32, 3 * int64_t{kMaxAffinityUnits},
                                      3};
      EXPECT_EQ(activations_of(affinity), sums);
    }
  });
}

TEST_F(Affinity, NoTokensAreABatchToo) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({2, 0.5f, 1.0f, 1.0f}, backend);
    affinity.record(AffinityBatch({1}, 1).view());
    affinity.update();
    finish_backends();
    affinity.record({});
    affinity.record({nullptr, 0, 8});
    affinity.record({nullptr, 5, 0});
    affinity.update();
    EXPECT_EQ(scores_of(affinity), (std::vector<float>{0.0f, 0.5f}));
    affinity.record(AffinityBatch({-1, -1, -1}, 3).view());
    affinity.update();
    EXPECT_EQ(scores_of(affinity), (std::vector<float>{0.0f, 0.25f}));
    EXPECT_EQ(activations_of(affinity), (std::vector<int64_t>{0, 1}));
  });
}

TEST_F(Affinity, Contract3_EqualScoresGoByTheLowerId) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({6, 1.0f, 0.1f, 1.0f}, backend);
    const BackendVector<int64_t> counts{0, 3, 0, 20, 0, 10};  // two of them full
    affinity.update(view_of(counts));
    EXPECT_EQ(top_of(affinity, 0), (std::vector<int32_t>{}));
    EXPECT_EQ(top_of(affinity, 1), (std::vector<int32_t>{3}));
    EXPECT_EQ(top_of(affinity, 4), (std::vector<int32_t>{3, 5, 1, 0}));
    EXPECT_EQ(top_of(affinity, 9), (std::vector<int32_t>{3, 5, 1, 0, 2, 4}));
    EXPECT_EQ(least_of(affinity, {}), -1);
    EXPECT_EQ(least_of(affinity, {5, 3}), 3);
    EXPECT_EQ(least_of(affinity, {4, 1, 2, 4}), 2);
    EXPECT_EQ(least_of(affinity, {1, 6}), 6);
    EXPECT_EQ(least_of(affinity, {6, 4}), 4);
    EXPECT_EQ(percentile_of(affinity, 0), 1.5 / 6);
    EXPECT_EQ(percentile_of(affinity, 1), 3.5 / 6);
    EXPECT_EQ(percentile_of(affinity, 3), 5.0 / 6);
    EXPECT_EQ(percentile_of(affinity, 6), 1.5 / 6);
  });
}

TEST_F(Affinity, ResetForgetsEverything) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({200}, backend);
    RandomStream random(3);
    const AffinityBatch batch(200, 50, 4, 0, random);
    affinity.record(batch.view());
    affinity.update();
    affinity.record(batch.view());
    affinity.reset();
    affinity.update();
    EXPECT_EQ(units_of(affinity), std::vector<uint32_t>(200));
    EXPECT_EQ(activations_of(affinity), std::vector<int64_t>(200));
  });
}

TEST_F(Affinity, NoExpertsAreLegal) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({0}, backend);
    affinity.record(AffinityBatch({-1, -1}, 1).view());
    affinity.update();
    affinity.update(VectorView<const int64_t>());
    affinity.reset();
    EXPECT_EQ(top_of(affinity, 3), (std::vector<int32_t>{}));
    EXPECT_EQ(percentile_of(affinity, 0), 0.5);
  });
}

TEST_F(Affinity, UnitsStayWhereTheyAre) {
  on_every_backend([](Backend backend) {
    ExpertAffinity affinity({5}, backend);
    const VectorView<const uint32_t> units = affinity.units();
    ExpertAffinity moved(std::move(affinity));
    moved.record(AffinityBatch({4}, 1).view());
    moved.update();
    finish_backends();
    EXPECT_EQ(moved.backend(), backend);
    EXPECT_EQ(units.size, 5);
    EXPECT_EQ(units[4], kMaxAffinityUnits);
  });
}

}  // namespace
}  // namespace switchyard::test

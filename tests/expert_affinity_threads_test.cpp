// Affinity on the host beside other threads: their order does not show, and nothing is lost.
#include <gtest/gtest.h>

#include <numeric>

#include "tests/expert_affinity_case.h"
#include "tests/on_threads.h"

namespace switchyard::test {
namespace {

constexpr ExpertAffinityConfig kConfig{.num_experts = 48, .decay = 0.9f, .activation_boost = 0.02f};

/// Parts of a batch of 1 to 60 tokens, some recorded one by one, some by a count of their own.
std::vector<std::pair<int64_t, int64_t>> random_parts(int64_t num_tokens, RandomStream& random) {
  std::vector<std::pair<int64_t, int64_t>> parts;
  for (int64_t begin = 0; begin < num_tokens;) {
    const int64_t end = std::min(num_tokens, begin + 1 + random.below(random.chance(50) ? 3 : 60));
    parts.emplace_back(begin, end);
    begin = end;
  }
  for (size_t i = parts.size(); i > 1; --i) {
    std::swap(parts[i - 1], parts[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  return parts;
}

TEST(AffinityThreads, Contract4_TheirNumberAndOrderDoNotShow) {
  for (int num_threads = 1; num_threads <= 8; ++num_threads) {
    RandomStream random(static_cast<uint64_t>(num_threads));
    ExpertAffinity affinity(kConfig, Backend::kCpu);
    ExpertAffinity reference(kConfig, Backend::kReference);
    for (int round = 0; round < 5; ++round) {
      const AffinityBatch batch(kConfig.num_experts, 700, 4, 1, random);
      const auto parts = random_parts(batch.num_tokens, random);
      on_threads(num_threads, [&](int thread) {
        for (auto i = static_cast<size_t>(thread); i < parts.size();
             i += static_cast<size_t>(num_threads)) {
          affinity.record(batch.rows(parts[i].first, parts[i].second));
        }
      });
      affinity.update();
      reference.record(batch.view());
      reference.update();
      ASSERT_EQ(units_of(affinity), units_of(reference)) << num_threads << " threads";
      ASSERT_EQ(activations_of(affinity), activations_of(reference)) << num_threads << " threads";
    }
  }
}

TEST(AffinityThreads, NothingIsLostBesideUpdatesAndReaders) {
  constexpr int kRecorders = 4;
  constexpr int kRounds = 2000;
  ExpertAffinity affinity(kConfig, Backend::kCpu);
  RandomStream random(1);
  const AffinityBatch few(kConfig.num_experts, 2, 4, 0, random);
  const AffinityBatch many(kConfig.num_experts, 50, 4, 0, random);
  on_threads(kRecorders + 2, [&](int thread) {
    for (int round = 0; round < kRounds; ++round) {
      if (thread < kRecorders) {
        affinity.record(few.view());
        affinity.record(many.view());
      } else if (thread == kRecorders) {
        affinity.update();
      } else {
        std::vector<int32_t> experts = top_of(affinity, kConfig.num_experts);
        const int32_t least = least_of(affinity, experts);
        EXPECT_GE(least, 0);
        EXPECT_LE(percentile_of(affinity, least), 1.0);
        for (const float score : scores_of(affinity)) {
          EXPECT_GE(score, 0.0f);
          EXPECT_LE(score, 1.0f);
        }
        for (const int64_t sum : activations_of(affinity)) EXPECT_GE(sum, 0);
        std::sort(experts.begin(), experts.end());
        std::vector<int32_t> all(static_cast<size_t>(kConfig.num_experts));
        std::iota(all.begin(), all.end(), 0);
        EXPECT_EQ(experts, all);  // each once, whatever happened meanwhile
      }
    }
  });
  affinity.update();
  const BackendVector<int64_t> few_counts = few.counts(kConfig.num_experts);
  const BackendVector<int64_t> many_counts = many.counts(kConfig.num_experts);
  const std::vector<int64_t> sums = activations_of(affinity);
  for (size_t expert = 0; expert < sums.size(); ++expert) {
    EXPECT_EQ(sums[expert], kRecorders * kRounds * (few_counts[expert] + many_counts[expert]));
  }
}

}  // namespace
}  // namespace switchyard::test

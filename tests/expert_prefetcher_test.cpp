// What follows what, what a prediction is worth, and when a prefetch is issued.
#include "switchyard/expert_prefetcher.h"

#include <gtest/gtest.h>

#include "tests/paging_case.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

void learn(ExpertTransitions& transitions, const std::vector<int32_t>& from,
           const std::vector<int32_t>& to) {
  transitions.learn(view_of(from), view_of(to));
}

std::vector<float> predict(const ExpertTransitions& transitions, const std::vector<int32_t>& from,
                           const std::vector<float>& prior = {}) {
  std::vector<float> out(static_cast<size_t>(transitions.num_experts()), -1.0f);
  transitions.predict(view_of(from), {prior.data(), static_cast<int64_t>(prior.size())},
                      {out.data(), static_cast<int64_t>(out.size())});
  return out;
}

TEST(ExpertTransitions, PredictTheShareOfWhatFollowed) {
  ExpertTransitions transitions(4);
  learn(transitions, {0}, {1, 2});
  learn(transitions, {0, -1}, {1, -1});
  EXPECT_EQ(predict(transitions, {0}), (std::vector<float>{0.0f, 0.5f, 0.25f, 0.0f}));
  EXPECT_EQ(predict(transitions, {3}), (std::vector<float>{0.0f, 0.0f, 0.0f, 0.0f}));
  // The mean over what came before; a prior counts as two visits.
  EXPECT_EQ(predict(transitions, {0, -1, 3}), (std::vector<float>{0.0f, 0.25f, 0.125f, 0.0f}));
  const std::vector<float> prior{1.0f, 0.5f, 0.0f, 0.0f};
  EXPECT_EQ(predict(transitions, {0}, prior), (std::vector<float>{0.5f, 0.75f, 0.25f, 0.0f}));
  EXPECT_EQ(predict(transitions, {}, prior), prior);
  transitions.reset();
  EXPECT_EQ(predict(transitions, {0}, prior), prior);
}

TEST(ExpertTransitions, ForgetWhatIsLongAgo) {
  ExpertTransitions transitions(2);
  for (int i = 0; i < 1000; ++i) learn(transitions, {0}, {0});
  for (int i = 0; i < 1000; ++i) learn(transitions, {0}, {1});
  const std::vector<float> found = predict(transitions, {0});
  EXPECT_LT(found[0], 0.02f);
  EXPECT_GT(found[1], 0.9f);
}

TEST(ExpertTransitions, SingleProbabilitiesAgreeWithPredictions) {
  ExpertTransitions transitions(40);
  RandomStream random(3);
  for (int i = 0; i < 500; ++i) {
    learn(transitions, {static_cast<int32_t>(random.below(40))},
          {static_cast<int32_t>(random.below(10))});
  }
  const std::vector<float> found = predict(transitions, {7});
  for (int32_t expert = 0; expert < 40; ++expert) {
    EXPECT_NEAR(transitions.probability(7, expert, 0.0f), found[static_cast<size_t>(expert)], 1e-6);
  }
}

TEST(ExpertTransitions, RefuseWhatIsOutOfRange) {
  EXPECT_EQ(refusal([] { const ExpertTransitions none(0); }),
            "num_experts is 0, must be in [1, 4096]");
  ExpertTransitions transitions(4);
  EXPECT_EQ(refusal([&] { learn(transitions, {4}, {0}); }), "from[0] is 4, must be in [-1, 3]");
  EXPECT_EQ(refusal([&] { learn(transitions, {0}, {1, -2}); }), "to[1] is -2, must be in [-1, 3]");
  EXPECT_EQ(refusal([&] { predict(transitions, {0}, {1.0f}); }),
            "prior has 1 elements, must have 4");
  EXPECT_EQ(predict(transitions, {0}), std::vector<float>(4));
}

/// A layer in which expert e is always followed by e + 4.
class Prefetching : public ::testing::Test {
 protected:
  static ExpertCacheConfig config(double upload_us) {
    ExpertCacheConfig config = cache_config(8, 3, EvictionPolicy::kAffinity);
    config.costs = {.miss_us = 10.0, .upload_us = upload_us};
    return config;
  }
  std::vector<PagingRequest> step(ExpertCache& cache, int32_t before) {
    const std::vector<int32_t> from{before};
    const std::vector<int32_t> chosen{before + 4};
    auto requests = requests_of([&](VectorView<PagingRequest> out) {
      return prefetcher_.prefetch(cache, 0, view_of(from), out);
    });
    serve(cache, chosen);
    prefetcher_.learn(0, view_of(from), view_of(chosen));
    return requests;
  }

  ExpertPrefetcher prefetcher_{{.num_experts = 8, .budget = 2}};
  RandomStream random_{11};
};

TEST_F(Prefetching, BringsInWhatAlwaysFollows) {
  ExpertCache cache(config(10.0));
  for (int i = 0; i < 400; ++i) step(cache, static_cast<int32_t>(random_.below(4)));
  cache.reset_metrics();
  for (int i = 0; i < 100; ++i) {
    for (const PagingRequest& request : step(cache, static_cast<int32_t>(random_.below(4)))) {
      EXPECT_EQ(request.priority, PagingPriority::kPrefetch);
    }
  }
  EXPECT_EQ(cache.metrics().hits, 100);
  EXPECT_GT(cache.metrics().prefetch_hits, 10);
  EXPECT_GT(prefetcher_.expected_precision(0.95f), 0.9);
}

TEST_F(Prefetching, IsNotDoneWhereItDoesNotPay) {
  ExpertCache cache(config(1e6));
  for (int i = 0; i < 400; ++i) {
    EXPECT_TRUE(step(cache, static_cast<int32_t>(random_.below(4))).empty());
  }
}

TEST_F(Prefetching, LearnsThatPredictionsFail) {
  EXPECT_FLOAT_EQ(static_cast<float>(prefetcher_.expected_precision(0.9f)), 0.9f);
  ExpertCache cache(config(0.0));
  const std::vector<int32_t> from{0};
  const std::vector<int32_t> learnt{5};
  for (int i = 0; i < 200; ++i) prefetcher_.learn(0, view_of(from), view_of(learnt));
  std::vector<PagingRequest> requests(4);
  for (int i = 0; i < 20; ++i) {
    prefetcher_.prefetch(cache, 0, view_of(from), {requests.data(), 4});
    // The trials end, the transitions stay.
    prefetcher_.learn(0, {}, {});
    requests_of([&](VectorView<PagingRequest> out) { return cache.evict(0, 5, out); });
  }
  EXPECT_LT(prefetcher_.expected_precision(0.98f), 0.2);
}

TEST_F(Prefetching, RefusesOtherShapesAndTooFewRequests) {
  ExpertCache other(cache_config(9, 3));
  ExpertCache cache(config(10.0));
  std::vector<PagingRequest> requests(4);
  const std::vector<int32_t> from{0};
  const std::vector<int32_t> unknown{8};
  EXPECT_EQ(refusal([&] {
              prefetcher_.prefetch(other, 0, view_of(from), {requests.data(), 4});
            }),
            "cache has 1 layers of 9 experts, must have 1 of 8");
  EXPECT_EQ(refusal([&] {
              prefetcher_.prefetch(cache, 1, view_of(from), {requests.data(), 4});
            }),
            "layer is 1, must be in [0, 0]");
  EXPECT_EQ(refusal([&] {
              prefetcher_.prefetch(cache, 0, view_of(from), {requests.data(), 3});
            }),
            "requests has 3 elements, must have at least 4");
  EXPECT_EQ(refusal([&] {
              prefetcher_.prefetch(cache, 0, view_of(unknown), {requests.data(), 4});
            }),
            "from[0] is 8, must be in [-1, 7]");
  EXPECT_EQ(refusal([&] { prefetcher_.learn(0, view_of(from), view_of(unknown)); }),
            "to[0] is 8, must be in [-1, 7]");
  EXPECT_EQ(refusal([] { const ExpertPrefetcher none({.num_experts = 8, .budget = 0}); }),
            "budget is 0, must be in [1, 64]");
  EXPECT_EQ(cache.metrics(), MemoryMetrics{});
}

}  // namespace
}  // namespace switchyard::test

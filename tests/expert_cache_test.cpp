// Serving tokens from limited fast memory: what is counted, moved, kept, and refused.
#include "switchyard/expert_cache.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/paging_case.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

using Requests = std::vector<PagingRequest>;

TEST(ExpertCache, MissesComeInAndOldOnesLeave) {
  ExpertCache cache(cache_config(8, 3));
  EXPECT_EQ(serve(cache, {4, 1}), (Requests{urgent_in(4), urgent_in(1)}));
  EXPECT_EQ(serve(cache, {1, 4}), Requests{});
  EXPECT_EQ(serve(cache, {7, 2}), (Requests{urgent_in(7), urgent_out(1), urgent_in(2)}));
  EXPECT_EQ(residents_of(cache.residency()), (std::vector<int32_t>{2, 4, 7}));
  const MemoryMetrics& metrics = cache.metrics();
  EXPECT_EQ(metrics.hits, 2);
  EXPECT_EQ(metrics.misses, 4);
  EXPECT_EQ(metrics.page_ins, 4);
  EXPECT_EQ(metrics.page_outs, 1);
  EXPECT_EQ(metrics.decisions, 3);
  EXPECT_EQ(metrics.timed_decisions, 0);
}

TEST(ExpertCache, LayersAreIndependent) {
  ExpertCacheConfig config = cache_config(8, 1);
  config.memory.num_layers = 2;
  ExpertCache cache(config);
  serve(cache, {3}, 0);
  EXPECT_EQ(serve(cache, {3}, 1), Requests{urgent_in(3, 1)});
  EXPECT_EQ(serve(cache, {5}, 1), (Requests{urgent_out(3, 1), urgent_in(5, 1)}));
  EXPECT_EQ(residents_of(cache.residency(), 0), std::vector<int32_t>{3});
}

TEST(ExpertCache, WhatATokenUsesStaysForIt) {
  for (const EvictionPolicy policy : {EvictionPolicy::kLru, EvictionPolicy::kLfu,
                                      EvictionPolicy::kAdaptive, EvictionPolicy::kAffinity}) {
    ExpertCache cache(cache_config(8, 2, policy));
    serve(cache, {0, 1});
    EXPECT_EQ(serve(cache, {5, 0}), (Requests{urgent_out(1), urgent_in(5)})) << name_of(policy);
  }
}

TEST(ExpertCache, WhereNothingMayLeaveNothingComes) {
  ExpertCache cache(cache_config(8, 2));
  EXPECT_EQ(serve(cache, {0, 1, 2, 3}), (Requests{urgent_in(0), urgent_in(1)}));
  EXPECT_EQ(cache.metrics().misses, 4);
  EXPECT_EQ(cache.metrics().page_ins, 2);
  ExpertCache none(cache_config(8, 0));
  EXPECT_EQ(serve(none, {0, 0, 1}), Requests{});
  EXPECT_EQ(none.metrics().misses, 3);
  EXPECT_EQ(none.metrics().hits, 0);
  EXPECT_EQ(none.metrics().page_ins, 0);
}

TEST(ExpertCache, TheFirstOfRepeatedAccessesMisses) {
  ExpertCache cache(cache_config(8, 2));
  const std::vector<int32_t> batch{3, -1, 3, 5, -1, 3};
  const auto requests = requests_of([&](VectorView<PagingRequest> out) {
    return cache.serve(0, {batch.data(), 3, 2}, out);
  });
  EXPECT_EQ(requests, (Requests{urgent_in(3), urgent_in(5)}));
  EXPECT_EQ(cache.metrics().misses, 2);
  EXPECT_EQ(cache.metrics().hits, 2);
}

TEST(ExpertCache, TokensWithoutExpertsChangeNothingButTheCount) {
  ExpertCache cache(cache_config(8, 2));
  EXPECT_EQ(cache.serve(0, {}, {}), 0);
  EXPECT_EQ(serve(cache, {-1, -1}), Requests{});
  EXPECT_EQ(cache.metrics().hits + cache.metrics().misses, 0);
  EXPECT_EQ(cache.metrics().decisions, 2);
}

TEST(ExpertCache, PinnedExpertsNeverLeave) {
  ExpertCache cache(cache_config(8, 2));
  serve(cache, {6, 2});
  cache.pin(0, 6);
  EXPECT_EQ(serve(cache, {3}), (Requests{urgent_out(2), urgent_in(3)}));
  EXPECT_EQ(serve(cache, {4, 5}), (Requests{urgent_out(3), urgent_in(4)}));
  serve(cache, {6});
  EXPECT_EQ(serve(cache, {1}), (Requests{urgent_out(4), urgent_in(1)}));
  cache.unpin(0, 6);
  EXPECT_EQ(serve(cache, {0, 1}), (Requests{urgent_out(6), urgent_in(0)}));
  EXPECT_EQ(refusal([&] { cache.pin(0, 6); }),
            "expert 6 of layer 0 is not resident, must be to be pinned");
}

TEST(ExpertCache, BytesOverAllLayersHold) {
  ExpertCacheConfig config = cache_config(8, 4);
  config.memory.num_layers = 2;
  config.memory.expert_bytes = 10;
  config.memory.fast_bytes = 35;
  ExpertCache cache(config);
  serve(cache, {0, 1}, 0);
  EXPECT_EQ(serve(cache, {5, 6}, 1), Requests{urgent_in(5, 1)});
  EXPECT_EQ(serve(cache, {7}, 1), (Requests{urgent_out(5, 1), urgent_in(7, 1)}));
  EXPECT_EQ(cache.residency().fast_bytes_used(), 30);
}

TEST(ExpertCache, TooFewRequestsAreRefusedAndChangeNothing) {
  for (const EvictionPolicy policy : {EvictionPolicy::kLru, EvictionPolicy::kAffinity}) {
    ExpertCache cache(cache_config(8, 2, policy));
    ExpertCache same(cache_config(8, 2, policy));
    for (ExpertCache* each : {&cache, &same}) serve(*each, {0, 1});
    const std::vector<int32_t> ids{1, 5};
    std::vector<PagingRequest> buffer(1);
    EXPECT_EQ(refusal([&] {
                cache.serve(0, {ids.data(), 1, 2}, {buffer.data(), 1});
              }),
              "requests has 1 elements, must have at least 2");
    EXPECT_EQ(buffer[0], PagingRequest{});
    EXPECT_EQ(cache.metrics(), same.metrics());
    EXPECT_EQ(serve(cache, {1, 5}), serve(same, {1, 5}));
    EXPECT_EQ(serve(cache, {2, 3}), serve(same, {2, 3}));
    EXPECT_EQ(cache.metrics(), same.metrics());
  }
}

TEST(ExpertCache, UnknownExpertsAreRefusedAndChangeNothing) {
  ExpertCache cache(cache_config(8, 2));
  serve(cache, {0, 1});
  EXPECT_EQ(refusal([&] {
              serve(cache, {0, 8});
            }),
            "expert_ids of token 0, slot 1 is 8, must be in [-1, 7]");
  EXPECT_EQ(refusal([&] { serve(cache, {-2}); }),
            "expert_ids of token 0, slot 0 is -2, must be in [-1, 7]");
  EXPECT_EQ(refusal([&] { serve(cache, {0}, 1); }), "layer is 1, must be in [0, 0]");
  EXPECT_EQ(refusal([&] { serve(cache, {0}, -1); }), "layer is -1, must be in [0, 0]");
  EXPECT_EQ(refusal([&] { cache.access(0, -1); }), "expert is -1, must be in [0, 7]");
  const int32_t id = 0;
  EXPECT_EQ(refusal([&] {
              cache.serve(0, {&id, 1, 1}, {nullptr, 2});
            }),
            "requests is a null pointer");
  EXPECT_EQ(refusal([&] { cache.serve(0, {nullptr, 1, 1}, {}); }), "expert_ids is a null pointer");
  EXPECT_EQ(cache.metrics().decisions, 1);
  EXPECT_EQ(cache.metrics().hits, 0);
}

TEST(ExpertCache, SlotsCanBeTakenAwayAndGiven) {
  ExpertCache cache(cache_config(8, 4));
  serve(cache, {3, 1, 0, 2});
  cache.pin(0, 3);
  const auto shrink = [&](int32_t slots, int64_t capacity) {
    return requests_of(
        [&](VectorView<PagingRequest> out) { return cache.set_fast_slots(0, slots, out); },
        capacity);
  };
  const auto out = [](int32_t expert) {
    return PagingRequest{0, expert, PagingDirection::kOut, PagingPriority::kNormal};
  };
  EXPECT_EQ(refusal([&] { shrink(0, 4); }),
            "fast_slots of layer 0 is 0, must be at least the 1 that are pinned");
  EXPECT_EQ(refusal([&] { shrink(2, 1); }), "requests has 1 elements, must have at least 2");
  EXPECT_EQ(refusal([&] { shrink(9, 4); }), "fast_slots is 9, must be in [0, 8]");
  EXPECT_EQ(cache.residency().num_resident(0), 4);
  EXPECT_EQ(shrink(2, 2), (Requests{out(1), out(0)}));
  EXPECT_EQ(residents_of(cache.residency()), (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(serve(cache, {7}), (Requests{urgent_out(2), urgent_in(7)}));
  EXPECT_EQ(shrink(3, 0), Requests{});
  EXPECT_EQ(serve(cache, {5}), Requests{urgent_in(5)});
}

TEST(ExpertCache, CallersBringInAndTakeOut) {
  ExpertCache cache(cache_config(8, 2));
  const auto admit = [&](int32_t expert, PagingPriority priority, int64_t capacity = 2) {
    return requests_of(
        [&](VectorView<PagingRequest> out) { return cache.admit(0, expert, priority, out); },
        capacity);
  };
  const PagingRequest in{0, 4, PagingDirection::kIn, PagingPriority::kNormal};
  EXPECT_EQ(admit(4, PagingPriority::kNormal), Requests{in});
  EXPECT_EQ(admit(4, PagingPriority::kNormal), Requests{});
  EXPECT_EQ(cache.next_victim(0), -1);
  serve(cache, {6});
  EXPECT_EQ(cache.next_victim(0), 4);
  EXPECT_EQ(refusal([&] { admit(5, PagingPriority::kPrefetch, 1); }),
            "requests has 1 elements, must have at least 2");
  EXPECT_EQ(refusal([&] { admit(8, PagingPriority::kPrefetch); }),
            "expert is 8, must be in [0, 7]");
  const auto evict = [&](int32_t expert) {
    return requests_of([&](VectorView<PagingRequest> out) { return cache.evict(0, expert, out); });
  };
  EXPECT_EQ(evict(4), (Requests{{0, 4, PagingDirection::kOut, PagingPriority::kNormal}}));
  EXPECT_EQ(evict(4), Requests{});
  cache.pin(0, 6);
  EXPECT_EQ(refusal([&] { evict(6); }),
            "expert 6 of layer 0 is pinned, must not leave fast memory");
  EXPECT_EQ(cache.metrics().page_ins, 2);
  EXPECT_EQ(cache.metrics().page_outs, 1);
}

TEST(ExpertCache, CountsPrefetchesThatCameTrueAndThatDidNot) {
  ExpertCache cache(cache_config(8, 2));
  const auto prefetch = [&](int32_t expert) {
    requests_of([&](VectorView<PagingRequest> out) {
      return cache.admit(0, expert, PagingPriority::kPrefetch, out);
    });
  };
  prefetch(1);
  prefetch(2);
  serve(cache, {1});
  serve(cache, {1});
  EXPECT_EQ(cache.metrics().prefetch_hits, 1);
  EXPECT_EQ(cache.metrics().prefetch_misses, 0);
  serve(cache, {3});  // 2 leaves unused
  EXPECT_EQ(cache.metrics().prefetch_misses, 1);
  serve(cache, {2});
  serve(cache, {2});
  EXPECT_EQ(cache.metrics().prefetch_hits, 1);
}

TEST(ExpertCache, LatencyIsMeasuredOnlyWhereWanted) {
  for (const bool measure : {false, true}) {
    ExpertCacheConfig config = cache_config(8, 2);
    config.measure_latency = measure;
    ExpertCache cache(config);
    for (int i = 0; i < 100; ++i) serve(cache, {i % 3});
    EXPECT_EQ(cache.metrics().decisions, 100);
    EXPECT_EQ(cache.metrics().timed_decisions, measure ? 100 : 0);
    EXPECT_EQ(cache.metrics().mean_latency_ns() > 0.0, measure);
    EXPECT_GE(cache.metrics().latency_max_ns, cache.metrics().mean_latency_ns());
    cache.reset_metrics();
    EXPECT_EQ(cache.metrics(), MemoryMetrics{});
  }
}

TEST(ExpertCache, ProbabilitiesOfUseAreShares) {
  ExpertCacheConfig config = cache_config(4, 4, EvictionPolicy::kAffinity);
  config.decay = 1.0;
  ExpertCache cache(config);
  EXPECT_EQ(cache.use_probability(0, 0), 0.0);
  for (int i = 0; i < 4; ++i) serve(cache, {0, i % 2 == 0 ? 1 : 2});
  EXPECT_EQ(cache.use_probability(0, 0), 1.0);
  EXPECT_EQ(cache.use_probability(0, 1), 0.5);
  EXPECT_EQ(cache.use_probability(0, 3), 0.0);
  config.decay = 0.5;
  ExpertCache fading(config);
  serve(fading, {1});
  serve(fading, {2});
  serve(fading, {2});
  EXPECT_DOUBLE_EQ(fading.use_probability(0, 1), 1.0 / 7.0);
}

TEST(ExpertCache, PrefetchesByAffinityWhatPays) {
  ExpertCacheConfig config = cache_config(8, 3, EvictionPolicy::kAffinity);
  config.costs = {.miss_us = 50.0, .upload_us = 50.0};
  config.decay = 1.0;
  ExpertCache cache(config);
  for (int i = 0; i < 10; ++i) serve(cache, i < 6 ? std::vector{0, 1} : std::vector{2, 3});
  requests_of([&](VectorView<PagingRequest> out) { return cache.evict(0, 3, out); });
  // 0 and 1 were used 6 times of 10, 2 and 3 only 4; one of the former has left.
  const auto requests =
      requests_of([&](VectorView<PagingRequest> out) { return cache.prefetch(0, 4, out); });
  ASSERT_EQ(requests.size(), 1u);
  EXPECT_EQ(requests[0].priority, PagingPriority::kPrefetch);
  EXPECT_LE(requests[0].expert, 1);
  EXPECT_EQ(refusal([&] { cache.prefetch(0, 2, {}); }),
            "requests has 0 elements, must have at least 4");
  EXPECT_EQ(refusal([&] { cache.prefetch(0, -1, {}); }), "budget is -1, must be in [0, 8]");
}

TEST(PagingCosts, BreakEvenWeighsUploadsAgainstMisses) {
  EXPECT_NEAR(break_even_precision({.miss_us = 47.0, .upload_us = 142.0}), 0.751, 0.001);
  EXPECT_EQ(break_even_precision({.miss_us = 10.0, .upload_us = 0.0}), 0.0);
  EXPECT_EQ(break_even_precision({.miss_us = 10.0, .upload_us = 10.0}, 0.5), 0.75);
  EXPECT_EQ(break_even_precision({}), 0.0);
  ExpertCacheConfig config = cache_config(8, 2);
  config.costs = {.miss_us = 10.0, .upload_us = 10.0};
  const ExpertCache cache(config);
  EXPECT_TRUE(cache.prefetch_pays(0.6, 0.0));
  EXPECT_FALSE(cache.prefetch_pays(0.5, 0.0));
  EXPECT_FALSE(cache.prefetch_pays(0.6, 0.3));
}

TEST(ExpertCacheConfig, RefusalNamesFieldValueAndLimit) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const auto says = [](const auto& change) {
    ExpertCacheConfig config = cache_config(8, 2);
    change(config);
    return refusal([&] { const ExpertCache cache(config); });
  };
  EXPECT_EQ(says([](auto& c) { c.decay = 0.0; }), "decay is 0, must be in [1e-6, 1]");
  EXPECT_EQ(says([](auto& c) { c.decay = kNan; }), "decay is nan, must be in [1e-6, 1]");
  EXPECT_EQ(says([](auto& c) { c.costs.miss_us = -1.0; }),
            "miss_us is -1, must be finite and 0 or more");
  EXPECT_EQ(says([](auto& c) { c.costs.upload_us = INFINITY; }),
            "upload_us is inf, must be finite and 0 or more");
  EXPECT_EQ(says([](auto& c) { c.prefetch_threshold = kNan; }),
            "prefetch_threshold is nan, must be in [0, 1]");
  EXPECT_EQ(says([](auto& c) { c.policy = static_cast<EvictionPolicy>(9); }),
            "policy is 9, must be in [0, 4]");
  EXPECT_EQ(says([](auto& c) { c.memory.fast_slots = -1; }), "fast_slots is -1, must be in [0, 8]");
  EXPECT_EQ(refusal([] { eviction_policy_of("fifo"); }),
            "policy is 'fifo', must be lru, lfu, adaptive, affinity or belady");
}

}  // namespace
}  // namespace switchyard::test

// Memory-aware serving allocates only when its objects are made. Counts every operator new.
#include <gtest/gtest.h>

#include "switchyard/expert_prefetcher.h"
#include "switchyard/memory_aware_router.h"
#include "tests/allocation_counter.h"
#include "tests/paging_case.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

TEST(MemoryAllocation, Contract7_DecisionsNeverAllocate) {
  for (const EvictionPolicy policy : {EvictionPolicy::kLru, EvictionPolicy::kLfu,
                                      EvictionPolicy::kAdaptive, EvictionPolicy::kAffinity}) {
    MemoryAwareRouterConfig config;
    config.routing = {.num_experts = 64, .top_k = 8};
    config.cache = cache_config(64, 20, policy);
    config.cache.learn_transitions = true;
    config.cache.measure_latency = true;
    config.adapts_bonus = true;
    config.prefetch_budget = 4;
    MemoryAwareRouter router(config);
    RandomStream random(1);
    std::vector<float> logits(64 * 100);
    for (float& logit : logits) logit = static_cast<float>(random.normal());
    std::vector<int32_t> ids(8 * 100);
    std::vector<float> weights(ids.size());
    std::vector<PagingRequest> requests(static_cast<size_t>(router.max_requests(100)));
    std::vector<std::byte> workspace(static_cast<size_t>(router.router().workspace_bytes(100)));
    const auto decide = [&](int64_t token, int64_t num_tokens) {
      RoutingResult result;
      result.expert_ids = {ids.data(), num_tokens, 8};
      result.gate_weights = MatrixView<float>(weights.data(), num_tokens, 8);
      router.route(0,
                   {.logits = MatrixView<const float>(&logits[static_cast<size_t>(64 * token)],
                                                      num_tokens, 64)},
                   result, {requests.data(), static_cast<int64_t>(requests.size())}, workspace);
    };
    EXPECT_EQ(allocations_of([&] {
                for (int64_t token = 0; token < 100; ++token) decide(token, 1);
                decide(0, 100);
                router.cache().set_fast_slots(0, 10, {requests.data(), 10});
              }),
              0)
        << name_of(policy);
    EXPECT_GT(router.cache().metrics().page_outs, 0);
  }
}

TEST(MemoryAllocation, Contract7_PrefetchingNeverAllocates) {
  ExpertCache cache(cache_config(64, 20, EvictionPolicy::kAffinity));
  ExpertPrefetcher prefetcher({.num_experts = 64});
  std::vector<PagingRequest> requests(16);
  EXPECT_EQ(allocations_of([&] {
              for (int32_t i = 0; i < 200; ++i) {
                const int32_t from[2] = {i % 64, (i + 7) % 64};
                const int32_t chosen[2] = {(i + 1) % 64, (i * i) % 64};
                prefetcher.prefetch(cache, 0, {from, 2}, {requests.data(), 16});
                cache.serve(0, {chosen, 1, 2}, {requests.data(), 16});
                prefetcher.learn(0, {from, 2}, {chosen, 2});
              }
            }),
            0);
}

TEST(MemoryAllocation, Contract7_ResidencyNeverAllocates) {
  Residency residency({.num_layers = 2, .num_experts = 100, .fast_slots = 50});
  std::vector<int32_t> experts(50);
  EXPECT_EQ(allocations_of([&] {
              residency.set_resident(1, 99);
              residency.pin(1, 3);
              residency.clear_resident(1, 99);
              residency.assign_resident(
                  1, {experts.data(), residency.list_resident(1, {experts.data(), 50})});
              residency.set_fast_slots(0, 7);
            }),
            0);
}

}  // namespace
}  // namespace switchyard::test

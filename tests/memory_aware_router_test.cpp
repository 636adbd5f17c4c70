// Decisions that choose, count, page and adapt in one call, and the bonus that follows a hit rate.
#include "switchyard/memory_aware_router.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/paging_case.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

MemoryAwareRouterConfig router_config(int32_t num_experts, int32_t top_k, int32_t fast_slots) {
  MemoryAwareRouterConfig config;
  config.routing.num_experts = num_experts;
  config.routing.top_k = top_k;
  config.cache = cache_config(num_experts, fast_slots);
  config.preference = additive_preference({}, 0.5f);
  return config;
}

/// Rows of logits and where their results go.
class Decision {
 public:
  Decision(const MemoryAwareRouterConfig& config, std::vector<float> logits)
      : num_experts_(config.routing.num_experts),
        logits_(std::move(logits)),
        num_tokens_(static_cast<int64_t>(logits_.size()) / num_experts_),
        ids_(static_cast<size_t>(num_tokens_ * config.routing.num_slots())),
        weights_(ids_.size()) {}

  std::vector<PagingRequest> take(MemoryAwareRouter& router, int64_t capacity = 64) {
    return requests_of(
        [&](VectorView<PagingRequest> requests) {
          return router.route(
              0, {.logits = MatrixView<const float>(logits_.data(), num_tokens_, num_experts_)},
              result(router.config().routing.num_slots()), requests);
        },
        capacity);
  }
  [[nodiscard]] const std::vector<int32_t>& ids() const { return ids_; }
  RoutingResult result(int64_t slots) {
    RoutingResult result;
    result.expert_ids = {ids_.data(), num_tokens_, slots};
    result.gate_weights = MatrixView<float>(weights_.data(), num_tokens_, slots);
    return result;
  }

 private:
  int64_t num_experts_;
  std::vector<float> logits_;
  int64_t num_tokens_;
  std::vector<int32_t> ids_;
  std::vector<float> weights_;
};

TEST(MemoryAwareRouter, PrefersWhatIsResident) {
  const MemoryAwareRouterConfig config = router_config(4, 1, 1);
  MemoryAwareRouter router(config);
  Decision first(config, {0.0f, 1.0f, 0.0f, 0.0f});
  EXPECT_EQ(first.take(router), std::vector{urgent_in(1)});
  Decision close(config, {0.0f, 1.0f, 1.4f, 0.0f});
  EXPECT_TRUE(close.take(router).empty());
  EXPECT_EQ(close.ids(), std::vector{1});
  Decision far(config, {0.0f, 1.0f, 1.6f, 0.0f});
  EXPECT_EQ(far.take(router), (std::vector{urgent_out(1), urgent_in(2)}));
  EXPECT_EQ(router.cache().metrics().hits, 1);
  EXPECT_EQ(router.cache().metrics().misses, 2);
}

TEST(MemoryAwareRouter, UnawareItRoutesPlainlyAndStillPages) {
  MemoryAwareRouterConfig config = router_config(4, 1, 1);
  config.memory_aware = false;
  MemoryAwareRouter router(config);
  EXPECT_EQ(router.bonus(), 0.0f);
  Decision(config, {0.0f, 1.0f, 0.0f, 0.0f}).take(router);
  Decision close(config, {0.0f, 1.0f, 1.4f, 0.0f});
  EXPECT_EQ(close.take(router), (std::vector{urgent_out(1), urgent_in(2)}));
}

TEST(MemoryAwareRouter, DecidesForBatchesAtOnce) {
  const MemoryAwareRouterConfig config = router_config(4, 1, 3);
  MemoryAwareRouter router(config);
  Decision batch(config, {0, 9, 0, 0, 0, 9, 0, 0, 9, 0, 0, 0});
  EXPECT_EQ(batch.take(router), (std::vector{urgent_in(1), urgent_in(0)}));
  EXPECT_EQ(router.cache().metrics().misses, 2);
  EXPECT_EQ(router.cache().metrics().hits, 1);
  EXPECT_EQ(router.cache().metrics().decisions, 1);
}

TEST(MemoryAwareRouter, LeavesSharedExpertsAlone) {
  MemoryAwareRouterConfig config = router_config(4, 1, 2);
  config.routing.num_shared_experts = 1;
  MemoryAwareRouter router(config);
  Decision token(config, {0, 9, 0, 0});
  EXPECT_EQ(token.take(router), std::vector{urgent_in(1)});
  EXPECT_EQ(token.ids(), (std::vector{1, 4}));
}

TEST(MemoryAwareRouter, PrefetchesAfterWhatIsUrgent) {
  MemoryAwareRouterConfig config = router_config(4, 1, 2);
  config.prefetch_budget = 1;
  config.preference = {};
  MemoryAwareRouter router(config);
  EXPECT_EQ(router.max_requests(1), 4);
  for (int i = 0; i < 8; ++i) Decision(config, {9, 0, 0, 0}).take(router);
  Decision(config, {0, 9, 0, 0}).take(router);
  requests_of([&](VectorView<PagingRequest> out) { return router.cache().evict(0, 0, out); });
  // Expert 2 comes urgently into the free slot, and 0 early in place of what is used less.
  const auto requests = Decision(config, {0, 0, 9, 0}).take(router);
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0], urgent_in(2));
  EXPECT_EQ(requests[1].direction, PagingDirection::kOut);
  EXPECT_EQ(requests[2], (PagingRequest{0, 0, PagingDirection::kIn, PagingPriority::kPrefetch}));
}

TEST(MemoryAwareRouter, TheBonusFollowsTheHitRate) {
  MemoryAwareRouterConfig config = router_config(16, 2, 4);
  config.adapts_bonus = true;
  config.controller = {.target_hit_rate = 0.9, .initial_bonus = 0.1f, .window = 16};
  MemoryAwareRouter router(config);
  EXPECT_EQ(router.bonus(), 0.1f);
  RandomStream random(2);
  for (int i = 0; i < 200; ++i) {
    std::vector<float> logits(16);
    for (float& logit : logits) logit = static_cast<float>(random.normal());
    Decision(config, logits).take(router);
  }
  EXPECT_GT(router.bonus(), 0.25f);
}

TEST(MemoryAwareRouter, RefusalsChangeNothing) {
  const MemoryAwareRouterConfig config = router_config(4, 2, 3);
  MemoryAwareRouter router(config);
  Decision token(config, {0.0f, 1.0f, 2.0f, 0.0f});
  EXPECT_EQ(refusal([&] { token.take(router, 1); }),
            "requests has 1 elements, must have at least 2");
  const std::vector<float> long_row(5);
  Decision wide(config, {0.0f, 1.0f, 2.0f, 0.0f});
  std::vector<PagingRequest> requests(8);
  EXPECT_NE(refusal([&] {
              router.route(0, {.logits = MatrixView<const float>(long_row.data(), 1, 5)},
                           wide.result(2), {requests.data(), 8});
            }),
            "");
  EXPECT_EQ(refusal([&] {
              router.route(1, {.logits = MatrixView<const float>(long_row.data(), 1, 4)},
                           wide.result(2), {requests.data(), 8});
            }),
            "layer is 1, must be in [0, 0]");
  EXPECT_EQ(router.cache().metrics(), MemoryMetrics{});
  EXPECT_EQ(router.cache().residency().num_resident(0), 0);
}

TEST(MemoryAwareRouterConfig, RefusalNamesFieldValueAndLimit) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const auto says = [](const auto& change) {
    MemoryAwareRouterConfig config = router_config(4, 2, 3);
    change(config);
    return refusal([&] { const MemoryAwareRouter router(config); });
  };
  EXPECT_EQ(says([](auto& c) { c.cache.memory.num_experts = 5; }),
            "cache.memory.num_experts is 5, must be 4 as routing.num_experts");
  EXPECT_NE(says([](auto& c) { c.preference.bonus = kNan; }).find("bonus is nan"),
            std::string::npos);
  EXPECT_NE(says([](auto& c) { c.preference.max_swap_loss = kNan; }).find("max_swap_loss is nan"),
            std::string::npos);
  EXPECT_EQ(says([](auto& c) { c.prefetch_budget = 5; }),
            "prefetch_budget is 5, must be in [0, 4]");
  EXPECT_EQ(says([](auto& c) { c.controller.window = 0; }), "window is 0, must be 1 or more");
  const uint8_t mask[4] = {};
  EXPECT_EQ(says([&](auto& c) {
              c.preference.resident_experts = {mask, 4};
            }),
            "preference.resident_experts has 4 elements, must be empty");
  const MemoryAwareRouterConfig config = router_config(4, 2, 3);
  EXPECT_EQ(refusal([&] { const MemoryAwareRouter router(config, Backend::kCuda); }),
            "backend is cuda, must be reference or cpu");
}

TEST(BonusController, StepsOnceAWindow) {
  BonusController controller({.target_hit_rate = 0.7, .initial_bonus = 0.15f, .window = 10});
  controller.observe(0, 9);
  EXPECT_EQ(controller.bonus(), 0.15f);
  controller.observe(1, 0);
  EXPECT_FLOAT_EQ(controller.bonus(), 0.16f);
  controller.observe(7, 3);  // as wanted
  EXPECT_FLOAT_EQ(controller.bonus(), 0.16f);
  controller.observe(75, 25);  // not more than 0.05 above
  EXPECT_FLOAT_EQ(controller.bonus(), 0.16f);
  controller.observe(8, 2);
  EXPECT_FLOAT_EQ(controller.bonus(), 0.15f);
  controller.reset();
  EXPECT_EQ(controller.bonus(), 0.15f);
}

TEST(BonusController, StaysWithinItsLimits) {
  BonusController controller({.rate = 50.0, .initial_bonus = 0.0f, .max_bonus = 0.8f, .window = 1});
  controller.observe(1, 0);
  EXPECT_EQ(controller.bonus(), 0.0f);
  for (int i = 0; i < 3; ++i) controller.observe(0, 1);
  EXPECT_EQ(controller.bonus(), 0.8f);
}

TEST(BonusController, RefusesBadConfigsAndCounts) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  const auto says = [](const BonusControllerConfig& config) {
    return refusal([&] { const BonusController controller(config); });
  };
  EXPECT_EQ(says({.target_hit_rate = kNan}), "target_hit_rate is nan, must be in [0, 1]");
  EXPECT_EQ(says({.rate = INFINITY}), "rate is inf, must be finite and 0 or more");
  EXPECT_EQ(says({.initial_bonus = -0.5f}), "initial_bonus is -0.5, must be in [0, 1]");
  EXPECT_EQ(says({.initial_bonus = 0.5f, .max_bonus = 0.25f}),
            "initial_bonus is 0.5, must be in [0, 0.25]");
  EXPECT_EQ(says({.max_bonus = 1.5f}), "max_bonus is 1.5, must be in [0, 1]");
  EXPECT_EQ(says({.window = 0}), "window is 0, must be 1 or more");
  BonusController controller({.window = 1});
  EXPECT_EQ(refusal([&] { controller.observe(-1, 0); }), "hits is -1, must be 0 or more");
  EXPECT_EQ(refusal([&] { controller.observe(0, -1); }), "misses is -1, must be 0 or more");
  EXPECT_EQ(controller.bonus(), 0.15f);
}

}  // namespace
}  // namespace switchyard::test

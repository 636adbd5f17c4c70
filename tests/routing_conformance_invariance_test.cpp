// What must not matter to the bits: the split of a batch, the place in it, strides, threads, what
// else is asked for, and whoever else is routing.
#include <gtest/gtest.h>

#include <bit>
#include <thread>

#include "tests/backend_variants.h"
#include "tests/guarded.h"
#include "tests/routing_conformance.h"
#include "tests/sanitizers.h"

namespace switchyard::test {
namespace {

RoutingCase random_case(RandomStream& random, int64_t num_tokens) {
  constexpr int32_t kCounts[] = {4, 8, 16, 60, 64, 128, 160, 256, 384};
  RoutingCase c;
  c.config.num_experts = random.pick(kCounts);
  c.config.top_k = static_cast<int32_t>(1 + random.below(std::min(c.config.num_experts, 12)));
  c.config.score_function = random.pick(kAllScores);
  c.num_tokens = num_tokens;
  randomize(random, c);
  c.with_counts = c.with_losses = true;
  return c;
}

void append(RoutedBatch& to, const RoutedBatch& part) {
  to.num_slots = part.num_slots;
  to.expert_ids.insert(to.expert_ids.end(), part.expert_ids.begin(), part.expert_ids.end());
  to.gate_weights.insert(to.gate_weights.end(), part.gate_weights.begin(), part.gate_weights.end());
  to.tokens_per_expert.resize(part.tokens_per_expert.size());
  for (size_t i = 0; i < part.tokens_per_expert.size(); ++i) {
    to.tokens_per_expert[i] += part.tokens_per_expert[i];
  }
  to.loss_sums.resize(part.loss_sums.size());
  for (size_t i = 0; i < part.loss_sums.size(); ++i) to.loss_sums[i] += part.loss_sums[i];
  to.sacrificed_mass.insert(to.sacrificed_mass.end(), part.sacrificed_mass.begin(),
                            part.sacrificed_mass.end());
  to.num_degenerate_rows += part.num_degenerate_rows;
  to.guards_intact = to.guards_intact && part.guards_intact;
}

TEST(RoutingInvariance, Contract4_SameBitsEverywhereForAnySplitOfABatch) {
  RandomStream random(401);
  for (int i = 0; i < 60; ++i) {
    const RoutingCase c = random_case(random, 67);
    const RoutingBatch batch(c);
    for (const BackendVariant& variant : backend_variants()) {
      const ScopedCpuTarget target(variant.target);
      const Router router(c.config, variant.backend, variant.threads);
      const RoutedBatch whole = route(router, c, batch.inputs());
      RoutedBatch parts;
      for (int64_t begin = 0; begin < c.num_tokens;) {
        const int64_t end = std::min(c.num_tokens, begin + random.below(30));
        append(parts, route(router, c, batch.inputs(begin, end)));
        begin = end;
      }
      ASSERT_EQ(difference(whole, parts), "") << variant.name << ' ' << describe(c);
    }
  }
}

TEST(RoutingInvariance, Contract4_SameBitsEverywhereForEveryPlaceInABatch) {
  RandomStream random(411);
  for (int i = 0; i < 60; ++i) {
    RoutingCase c = random_case(random, 40);
    c.with_token_mask = false;
    const RoutingBatch one([&] {
      RoutingCase single = c;
      single.num_tokens = 1;
      return single;
    }());
    // Forty copies of one row, and the row alone.
    std::vector<float> copies;
    const std::vector<float> row = one.logits().row(0);
    for (int64_t t = 0; t < c.num_tokens; ++t) copies.insert(copies.end(), row.begin(), row.end());
    const Logits logits(copies, c.dtype, c.num_tokens, c.config.num_experts,
                        c.config.num_experts + c.logits_padding);
    RoutingInputs inputs = one.inputs();
    inputs.logits = logits.view();
    for (const BackendVariant& variant : backend_variants()) {
      const ScopedCpuTarget target(variant.target);
      const Router router(c.config, variant.backend, variant.threads);
      const RoutedBatch alone = route(router, c, one.inputs());
      const RoutedBatch together = route(router, c, inputs);
      for (size_t t = 0; t < together.expert_ids.size(); ++t) {
        const size_t slot = t % alone.expert_ids.size();
        ASSERT_EQ(together.expert_ids[t], alone.expert_ids[slot]) << variant.name << describe(c);
        ASSERT_EQ(together.gate_weights[t], alone.gate_weights[slot])
            << variant.name << describe(c);
      }
    }
  }
}

TEST(RoutingInvariance, Contract4_SameBitsEverywhereForLargeBatches) {
  RandomStream random(421);
  struct Shape {
    int32_t num_experts, top_k;
    int64_t num_tokens;
  };
  // More than 5 * 2^16 logits, so that no backend finds the work too small for five tasks.
  for (const Shape& shape : {Shape{8, 2, 41001}, Shape{60, 4, 5503}, Shape{256, 8, 1303}}) {
    for (const ScoreFunction score : kAllScores) {
      for (const bool plain : {true, false}) {
        if (kHasSanitizer && plain != (score == ScoreFunction::kSoftmax)) continue;
        RoutingCase c;
        c.config.num_experts = shape.num_experts;
        c.config.top_k = shape.top_k;
        c.config.score_function = score;
        c.num_tokens = shape.num_tokens;
        if (!plain) randomize(random, c);
        c.with_counts = c.with_losses = true;
        ASSERT_EQ(disagreement(c), "");
      }
    }
  }
}

TEST(RoutingInvariance, WhatIsNotAskedForChangesNothingElse) {
  RandomStream random(431);
  for (int i = 0; i < 40; ++i) {
    RoutingCase c = random_case(random, 33);
    const RoutingBatch batch(c);
    for (const BackendVariant& variant : backend_variants()) {
      const ScopedCpuTarget target(variant.target);
      const Router router(c.config, variant.backend, variant.threads);
      c.with_counts = c.with_losses = true;
      const RoutedBatch all = route(router, c, batch.inputs());
      c.with_counts = c.with_losses = false;
      const RoutedBatch bare = route(router, c, batch.inputs());
      ASSERT_TRUE(bare.guards_intact) << variant.name << describe(c);
      ASSERT_EQ(bare.expert_ids, all.expert_ids) << variant.name << describe(c);
      ASSERT_EQ(bare.gate_weights, all.gate_weights) << variant.name << describe(c);
    }
  }
}

/// Logits, masks and workspace at any element's address.
TEST(RoutingInvariance, MemoryNeedsNoMoreThanItsElementsAlignment) {
  for (const int32_t num_experts : {8, 64, 128, 256, 300}) {
    const RouterConfig config{.num_experts = num_experts, .top_k = 6};
    const int64_t num_tokens = 33;
    RandomStream random(441);
    BackendVector<float> values;
    for (int64_t i = 0; i < num_tokens * num_experts + 8; ++i) {
      values.push_back(static_cast<float>(random.normal()));
    }
    for (const int64_t offset : {1, 2, 3, 7}) {
      RoutingInputs inputs;
      inputs.logits = MatrixView<const float>(values.data() + offset, num_tokens, num_experts);
      RoutingCase c;
      c.config = config;
      const RoutedBatch expected = route(Router(config, Backend::kReference), c, inputs);
      for (const BackendVariant& variant : backend_variants()) {
        const ScopedCpuTarget target(variant.target);
        const Router router(config, variant.backend, variant.threads);
        BackendVector<std::byte> workspace(
            static_cast<size_t>(router.workspace_bytes(num_tokens) + offset));
        Guarded<int32_t> ids(num_tokens, 6, 7);
        Guarded<float> weights(num_tokens, 6, 7);
        RoutingResult result;
        result.expert_ids = ids.matrix();
        result.gate_weights = weights.matrix();
        router.route(inputs, result, std::span(workspace).subspan(static_cast<size_t>(offset)));
        finish_backends();
        ASSERT_EQ(ids.dense(), expected.expert_ids) << variant.name << " E=" << num_experts;
        ASSERT_TRUE(ids.intact() && weights.intact());
      }
    }
  }
}

TEST(RoutingInvariance, OneRouterServesManyThreadsAtOnce) {
  RoutingCase c;
  c.config = {.num_experts = 64, .top_k = 8, .score_function = ScoreFunction::kSigmoid};
  c.num_tokens = 200;
  const RoutingBatch batch(c);
  const Router router(c.config, backend_variants().front().backend, {1, nullptr});
  const RoutedBatch expected = route(router, c, batch.inputs());
  std::vector<std::string> problems(4);
  std::vector<std::thread> threads;
  for (std::string& problem : problems) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20 && problem.empty(); ++i) {
        problem = difference(expected, route(router, c, batch.inputs()));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& problem : problems) EXPECT_EQ(problem, "");
}

TEST(RoutingInvariance, ARouterKeepsTheInstructionSetItWasMadeFor) {
  RoutingCase c;
  c.config = {.num_experts = 128, .top_k = 8};
  c.num_tokens = 33;
  for (const int64_t target : cpu_targets()) {
    const Router router = [&] {
      const ScopedCpuTarget scope(target);
      return Router(c.config, Backend::kCpu);
    }();
    EXPECT_EQ(difference(route(Router(c.config, Backend::kReference), c), route(router, c)), "");
  }
}

}  // namespace
}  // namespace switchyard::test

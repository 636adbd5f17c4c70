// Sorting: the reference against its definition, every backend against the reference.
#include "switchyard/permutation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cpu/weight_cutoff.h"
#include "tests/permutation_case.h"

namespace switchyard::test {
namespace {

using Mode = ExpertCapacity::Mode;

std::string describe(const PermutationCase& batch, uint64_t seed) {
  const PermutationConfig& c = batch.config;
  std::ostringstream text;
  text << "seed " << seed << ", tokens " << batch.num_tokens << ", experts " << c.num_experts
       << ", top_k " << c.top_k << ", block_rows " << c.block_rows << ", local "
       << c.first_local_expert << " + " << c.num_local() << ", capacity mode "
       << static_cast<int>(c.capacity.mode) << " rows " << c.capacity.rows << " factor "
       << c.capacity.factor << " policy " << static_cast<int>(c.capacity.drop_policy)
       << ", padding " << batch.padding << ", weights " << name_of(batch.weight_type);
  return text.str();
}

ExpertCapacity random_capacity(RandomStream& random) {
  ExpertCapacity capacity;
  capacity.mode = one_of(random, {Mode::kUnlimited, Mode::kFixed, Mode::kFactor});
  capacity.rows = random.chance(15) ? 0 : random.below(40);
  capacity.factor = one_of(random, {0.001, 0.5, 1.0, 1.25, 100.0});
  capacity.drop_policy = random.chance(50) ? DropPolicy::kWeight : DropPolicy::kPosition;
  return capacity;
}

PermutationCase random_shape(RandomStream& random) {
  PermutationConfig config;
  config.num_experts = one_of(random, {1, 2, 3, 8, 31, 64, 257, 4096});
  config.top_k = one_of(random, {1, 2, 3, 8, 17, 128});
  config.block_rows = one_of(random, {1, 2, 3, 16, 128, 256});
  config.capacity = random_capacity(random);
  if (random.chance(40)) {
    config.first_local_expert = static_cast<int32_t>(random.below(config.num_experts + 1));
    const int64_t left = config.num_experts - config.first_local_expert;
    config.num_local_experts = static_cast<int32_t>(random.below(left + 2) - 1);
  }
  const int64_t num_tokens = one_of(random, {0, 1, 2, 5, 64, 100});
  const auto type = random.chance(50) ? DataType::kFloat32 : DataType::kBFloat16;
  return random_case(config, num_tokens, one_of(random, {0, 0, 1, 5}), type, random);
}

TEST(PermutationReference, Contract6_GivesWhatTheDefinitionSays) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    RandomStream random(seed);
    PermutationCase batch = random_shape(random);
    if (batch.num_tokens * batch.config.top_k * batch.config.num_experts > 400000) continue;
    SCOPED_TRACE(describe(batch, seed));
    const Permuter permuter(batch.config, Backend::kReference);
    const SortedBatch expected = defined_sort(batch, permuter.sizes(batch.num_tokens));
    ASSERT_EQ(sort_guarded(reference_variant(), batch), expected);
  }
}

class PermutationSort : public testing::TestWithParam<PermuterVariant> {};

TEST_P(PermutationSort, Contract6_SortedByExpertTokenSlot) {
  const auto batch = make_case({.num_experts = 3, .top_k = 2}, {{2, 0}, {0, 2}, {2, 2}});
  const SortedBatch sorted = sort_guarded(GetParam(), batch);
  EXPECT_EQ(sorted.row_to_assignment, (std::vector<int64_t>{1, 2, 0, 3, 4, 5}));
  EXPECT_EQ(sorted.assignment_to_row, (std::vector<int64_t>{2, 0, 1, 3, 4, 5}));
  EXPECT_EQ(sorted.tokens_per_expert, (std::vector<int64_t>{2, 0, 4}));
  EXPECT_EQ(sorted.expert_offsets, (std::vector<int64_t>{0, 2, 2, 6}));
  EXPECT_EQ(sorted.block_experts, (std::vector<int32_t>{0, 0, 2, 2, 2, 2}));
  EXPECT_EQ(sorted.totals, (PermutationTotals{6, 6, 0, 0}));
}

TEST_P(PermutationSort, EachExpertStartsAtABlock) {
  const auto batch =
      make_case({.num_experts = 3, .top_k = 2, .block_rows = 4}, {{2, 0}, {2, -1}, {2, 2}, {2, 2}});
  const SortedBatch sorted = sort_guarded(GetParam(), batch);
  EXPECT_EQ(sorted.expert_offsets, (std::vector<int64_t>{0, 4, 4, 12}));
  EXPECT_EQ(sorted.row_to_assignment,
            (std::vector<int64_t>{1, -1, -1, -1, 0, 2, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(sorted.block_experts, (std::vector<int32_t>{0, 2, 2, -1}));
  EXPECT_EQ(sorted.totals, (PermutationTotals{12, 7, 0, 0}));
}

TEST_P(PermutationSort, DropByPositionKeepsTheFirst) {
  const auto batch =
      make_case({.num_experts = 2, .top_k = 2, .capacity = {.mode = Mode::kFixed, .rows = 2}},
                {{0, 1}, {0, -1}, {0, 0}, {1, 0}});
  const SortedBatch sorted = sort_guarded(GetParam(), batch);
  EXPECT_EQ(sorted.row_to_assignment, (std::vector<int64_t>{0, 2, 1, 6}));
  EXPECT_EQ(sorted.assignment_to_row, (std::vector<int64_t>{0, 2, 1, -1, -1, -1, 3, -1}));
  EXPECT_EQ(sorted.totals, (PermutationTotals{4, 4, 3, 1}));
}

TEST_P(PermutationSort, DropByWeightKeepsTheLargestThenTheFirst) {
  auto batch =
      make_case({.num_experts = 1,
                 .top_k = 1,
                 .capacity = {.mode = Mode::kFixed, .rows = 3, .drop_policy = DropPolicy::kWeight}},
                {{0}, {0}, {0}, {0}, {0}, {0}});
  batch.weights = {0.5f, std::nanf(""), 0.25f, 0.5f, 0.5f, 2.0f};
  EXPECT_EQ(sort_guarded(GetParam(), batch).row_to_assignment, (std::vector<int64_t>{0, 3, 5}));
}

TEST_P(PermutationSort, DropByWeightTakesMinusZeroForZeroAndNaNForLeast) {
  auto batch =
      make_case({.num_experts = 1,
                 .top_k = 1,
                 .capacity = {.mode = Mode::kFixed, .rows = 3, .drop_policy = DropPolicy::kWeight}},
                {{0}, {0}, {0}, {0}, {0}});
  batch.weights = {std::nanf(""), -0.0f, 0.0f, -std::numeric_limits<float>::infinity(),
                   -std::nanf("")};
  EXPECT_EQ(sort_guarded(GetParam(), batch).row_to_assignment, (std::vector<int64_t>{1, 2, 3}));
}

TEST_P(PermutationSort, OnlyLocalExpertsGetRows) {
  const auto batch =
      make_case({.num_experts = 4, .top_k = 2, .first_local_expert = 1, .num_local_experts = 2},
                {{0, 1}, {3, -1}, {2, 1}});
  const SortedBatch sorted = sort_guarded(GetParam(), batch);
  EXPECT_EQ(sorted.tokens_per_expert, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(sorted.row_to_assignment, (std::vector<int64_t>{1, 5, 4, -1, -1, -1}));
  EXPECT_EQ(sorted.assignment_to_row, (std::vector<int64_t>{-1, 0, -1, -1, 2, 1}));
  EXPECT_EQ(sorted.totals, (PermutationTotals{3, 3, 0, 0}));
}

TEST_P(PermutationSort, TokensOfOthersAreNotFullyDropped) {
  const auto batch = make_case({.num_experts = 3,
                                .top_k = 2,
                                .capacity = {.mode = Mode::kFixed, .rows = 1},
                                .first_local_expert = 1},
                               {{1, 2}, {1, 0}, {0, 0}, {-1, -1}, {2, 1}});
  EXPECT_EQ(sort_guarded(GetParam(), batch).totals, (PermutationTotals{2, 2, 3, 2}));
}

TEST_P(PermutationSort, CapacityZeroDropsEverything) {
  const auto batch =
      make_case({.num_experts = 2, .top_k = 1, .block_rows = 8, .capacity = {.mode = Mode::kFixed}},
                {{0}, {1}});
  const SortedBatch sorted = sort_guarded(GetParam(), batch);
  EXPECT_TRUE(sorted.row_to_assignment.empty());
  EXPECT_EQ(sorted.totals, (PermutationTotals{0, 0, 2, 2}));
}

TEST_P(PermutationSort, Contract7_NoTokensIsLegal) {
  const auto batch = make_case({.num_experts = 3, .top_k = 2, .block_rows = 16}, {});
  const SortedBatch sorted = sort_guarded(GetParam(), batch);
  EXPECT_EQ(sorted.expert_offsets, (std::vector<int64_t>{0, 0, 0, 0}));
  EXPECT_EQ(sorted.totals, PermutationTotals{});
}

TEST_P(PermutationSort, Contract7_WorkspaceOfAnyAlignmentAndOfALargerBatchServes) {
  RandomStream random(5);
  const PermutationConfig config{.num_experts = 7, .top_k = 3};
  const PermutationCase batch = random_case(config, 50, 0, DataType::kFloat32, random);
  const auto permuter = make_route(GetParam(), config);
  GuardedPermutation out(*permuter, batch);
  Guarded<std::byte> workspace(1, permuter->workspace_bytes(60), permuter->workspace_bytes(60));
  std::vector<std::byte> shifted(static_cast<size_t>(permuter->workspace_bytes(60)) + 3);
  permuter->sort(batch.expert_ids(), {}, out.view(), std::span(shifted).subspan(3));
  EXPECT_EQ(out.dense(), sort_guarded(reference_variant(), batch));
  const auto bytes = workspace.vector();
  permuter->sort(batch.expert_ids(), {}, out.view(), {bytes.data, static_cast<size_t>(bytes.size)});
  EXPECT_TRUE(workspace.intact());
}

TEST_P(PermutationSort, Contract4_SameBytesAsTheReference) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    RandomStream random(seed);
    const PermutationCase batch = random_shape(random);
    SCOPED_TRACE(describe(batch, seed));
    ASSERT_EQ(sort_guarded(GetParam(), batch), sort_guarded(reference_variant(), batch));
  }
}

// Large enough that five threads all get a part.
TEST_P(PermutationSort, Contract4_SameBytesForAnyNumberOfThreads) {
  struct Shape {
    int32_t num_experts, top_k;
    int64_t num_tokens;
  };
  constexpr Shape kShapes[] = {
      {1, 1, 90000}, {8, 2, 45000}, {256, 8, 11000}, {64, 128, 700}, {4096, 128, 2600}};
  constexpr ExpertCapacity kCapacities[] = {
      {},
      {.mode = Mode::kFactor, .factor = 1.0},
      {.mode = Mode::kFactor, .factor = 1.0, .drop_policy = DropPolicy::kWeight},
      {.mode = Mode::kFixed, .rows = 3, .drop_policy = DropPolicy::kWeight}};
  uint64_t seed = 1;
  for (const Shape& shape : kShapes) {
    for (const ExpertCapacity& capacity : kCapacities) {
      RandomStream random(++seed);
      PermutationConfig config{.num_experts = shape.num_experts,
                               .top_k = shape.top_k,
                               .block_rows = one_of(random, {1, 16}),
                               .capacity = capacity};
      if (random.chance(30)) config.first_local_expert = config.num_experts / 2;
      const auto batch = random_case(config, shape.num_tokens, 0, DataType::kFloat32, random);
      SCOPED_TRACE(describe(batch, seed));
      ASSERT_EQ(sort_guarded(GetParam(), batch), sort_guarded(reference_variant(), batch));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, PermutationSort, testing::ValuesIn(sorting_variants()),
                         [](const auto& variant) { return test_name(variant.param); });

TEST(PermutationSizes, AreThoseOfTheWorstBatch) {
  for (const int32_t num_experts : {1, 2, 3}) {
    for (const int32_t block_rows : {1, 2, 3, 5}) {
      for (const int64_t capacity : {0, 1, 2, 3, 9}) {
        for (int64_t num_tokens = 0; num_tokens <= 5; ++num_tokens) {
          const PermutationConfig config{.num_experts = num_experts,
                                         .top_k = 1,
                                         .block_rows = block_rows,
                                         .capacity = {.mode = Mode::kFixed, .rows = capacity}};
          const Permuter permuter(config, Backend::kReference);
          int64_t batches = 1;
          for (int64_t i = 0; i < num_tokens; ++i) batches *= num_experts;
          int64_t worst = 0;
          for (int64_t batch = 0; batch < batches; ++batch) {
            std::vector<int64_t> counts(static_cast<size_t>(num_experts));
            for (int64_t i = 0, digits = batch; i < num_tokens; ++i, digits /= num_experts) {
              ++counts[static_cast<size_t>(digits % num_experts)];
            }
            int64_t rows = 0;
            for (const int64_t count : counts) {
              rows += (std::min(count, capacity) + block_rows - 1) / block_rows * block_rows;
            }
            worst = std::max(worst, rows);
          }
          const PermutationSizes sizes = permuter.sizes(num_tokens);
          EXPECT_GE(sizes.num_rows, worst) << num_experts << ' ' << block_rows << ' ' << capacity;
          EXPECT_EQ(sizes.num_rows, sizes.num_blocks * block_rows);
          if (capacity >= num_tokens) {
            EXPECT_EQ(sizes.num_rows, worst);
          }
        }
      }
    }
  }
}

TEST(PermutationSizes, PassTwoToThe31) {
  const Permuter permuter({.num_experts = 256, .top_k = 8, .block_rows = 128});
  EXPECT_EQ(permuter.sizes(int64_t{1} << 40).num_rows, (int64_t{1} << 43) + 256 * 127);
  EXPECT_GT(permuter.workspace_bytes(int64_t{1} << 40), 0);
}

TEST(CapacityRows, IsTheShareRoundedUpAndNeverZeroForTokens) {
  const ExpertCapacity factor{.mode = Mode::kFactor, .factor = 1.25};
  EXPECT_EQ(capacity_rows(factor, 1000, 2, 8), 313);
  EXPECT_EQ(capacity_rows(factor, 1, 2, 8), 1);
  EXPECT_EQ(capacity_rows(factor, 0, 2, 8), 0);
  EXPECT_EQ(capacity_rows({.mode = Mode::kFactor, .factor = 1e-300}, 5, 1, 4096), 1);
  EXPECT_EQ(capacity_rows({.mode = Mode::kFactor, .factor = 1e300}, 5, 1, 4),
            std::numeric_limits<int64_t>::max());
  EXPECT_EQ(capacity_rows({.mode = Mode::kFixed, .rows = 7}, 0, 2, 8), 7);
  EXPECT_EQ(capacity_rows({}, 3, 2, 8), std::numeric_limits<int64_t>::max());
}

TEST(WeightCutoff, KeepsExactlyTheCapacity) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    RandomStream random(seed);
    std::vector<uint32_t> keys(static_cast<size_t>(random.below(50) + 1));
    const uint32_t mask = one_of(random, {0xffffffffu, 0x3u, 0xff00u, 0x01000001u, 0u});
    for (uint32_t& key : keys) key = random.bits32() & mask;
    const auto count = static_cast<int64_t>(keys.size());
    const int64_t capacity = random.below(count + 2);
    const auto cutoff = cpu::find_weight_cutoff(keys.data(), count, capacity);
    int64_t kept = 0;
    int64_t equal = 0;
    for (const uint32_t key : keys) {
      kept += key > cutoff.key ? 1 : 0;
      equal += key == cutoff.key ? 1 : 0;
    }
    EXPECT_EQ(kept + std::min(equal, cutoff.ties), std::min(capacity, count)) << "seed " << seed;
  }
}

}  // namespace
}  // namespace switchyard::test

// Hash routing: tables, the reference by hand and against Router, every other backend against it.
#include "switchyard/hash_routing.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <set>

#include "switchyard/errors.h"
#include "tests/backend_variants.h"
#include "tests/guarded.h"
#include "tests/routing_conformance.h"

namespace switchyard::test {
namespace {

using Ids = std::vector<int32_t>;

struct HashCase {
  RouterConfig config;
  BackendVector<int32_t> token_ids;
  BackendVector<int32_t> table;  ///< [table.size() / top_k, top_k]
  ConstTensorView logits;
  DataType weight_dtype = DataType::kFloat32;
  int64_t padding = 0;
};

RoutedBatch look_up(const HashCase& c, Backend backend, CpuThreads threads = {}) {
  const auto num_tokens = static_cast<int64_t>(c.token_ids.size());
  const int64_t slots = c.config.num_slots();
  Guarded<int32_t> ids(num_tokens, slots, slots + c.padding);
  Guarded<float> weights(num_tokens, slots, slots + c.padding);
  Guarded<BFloat16> narrow(num_tokens, slots, slots + c.padding);
  Guarded<int64_t> counts(1, c.config.num_expert_ids(), c.config.num_expert_ids());
  Guarded<int64_t> degenerate(1, 1, 1);
  RoutingResult result;
  result.expert_ids = ids.matrix();
  const bool is_narrow = c.weight_dtype == DataType::kBFloat16;
  result.gate_weights = is_narrow ? TensorView(narrow.matrix()) : TensorView(weights.matrix());
  result.tokens_per_expert = counts.vector();
  result.num_degenerate_rows = degenerate.vector().data;
  const int64_t num_ids = static_cast<int64_t>(c.table.size()) / c.config.top_k;
  HashRouter(c.config, backend, threads)
      .route(
          {{c.token_ids.data(), num_tokens}, {c.table.data(), num_ids, c.config.top_k}, c.logits},
          result);
  finish_backends();
  RoutedBatch out;
  out.num_slots = slots;
  out.expert_ids = ids.dense();
  for (const float weight : weights.dense()) {
    if (!is_narrow) out.gate_weights.push_back(std::bit_cast<uint32_t>(weight));
  }
  for (const BFloat16 weight : narrow.dense()) {
    if (is_narrow) out.gate_weights.push_back(weight.bits);
  }
  out.tokens_per_expert = counts.dense();
  out.num_degenerate_rows = degenerate.dense()[0];
  out.guards_intact =
      ids.intact() && weights.intact() && narrow.intact() && counts.intact() && degenerate.intact();
  return out;
}

std::vector<float> floats(const std::vector<uint32_t>& bits) {
  std::vector<float> out;
  for (const uint32_t b : bits) out.push_back(std::bit_cast<float>(b));
  return out;
}

TEST(HashTable, RowsHoldDistinctExpertsInRange) {
  for (const int32_t num_experts : {1, 2, 8, 64, 257, 2048}) {
    for (const int32_t top_k : {1, 2, 6, 64}) {
      if (top_k > num_experts) continue;
      Guarded<int32_t> table(300, top_k, top_k + 1);
      fill_hash_table(num_experts, 42, table.matrix());
      EXPECT_TRUE(table.intact());
      const Ids ids = table.dense();
      for (auto row = ids.begin(); row != ids.end(); row += top_k) {
        const std::set<int32_t> distinct(row, row + top_k);
        ASSERT_EQ(static_cast<int32_t>(distinct.size()), top_k);
        ASSERT_GE(*distinct.begin(), 0);
        ASSERT_LT(*distinct.rbegin(), num_experts);
      }
    }
  }
}

TEST(HashTable, TheSameSeedGivesTheSameTableOnEveryMachine) {
  const auto table = [](uint64_t seed) {
    Ids ids(6);
    fill_hash_table(16, seed, {ids.data(), 3, 2});
    return ids;
  };
  EXPECT_EQ(table(7), table(7));
  EXPECT_NE(table(7), table(8));
  EXPECT_EQ(table(7), (Ids{9, 1, 7, 11, 8, 11}));
}

TEST(HashTable, SpreadsEvenlyInEverySlot) {
  constexpr int64_t kVocabulary = 64000;
  constexpr int32_t kExperts = 64;
  Ids table(kVocabulary * 4);
  fill_hash_table(kExperts, 3, {table.data(), kVocabulary, 4});
  std::vector<int64_t> counts(4 * kExperts, 0);
  for (size_t i = 0; i < table.size(); ++i) {
    ++counts[i % 4 * kExperts + static_cast<size_t>(table[i])];
  }
  // 1000 expected, standard deviation 31.
  for (const int64_t count : counts) EXPECT_NEAR(static_cast<double>(count), 1000.0, 160.0);
}

TEST(HashTable, RefusalsNameArgumentValueAndLimit) {
  Ids memory(64, 9);
  const auto refusal = [&](int32_t num_experts, MatrixView<int32_t> table) {
    try {
      fill_hash_table(num_experts, 1, table);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(0, {memory.data(), 4, 1}), "num_experts is 0, must be in [1, 2048]");
  EXPECT_EQ(refusal(2, {memory.data(), 4, 3}), "table has 3 columns, must have from 1 to 2");
  EXPECT_EQ(refusal(2, {memory.data(), 4, 0}), "table has 0 columns, must have from 1 to 2");
  EXPECT_EQ(refusal(2, {nullptr, 4, 2}), "table is a null pointer");
  EXPECT_EQ(refusal(2, {memory.data(), -1, 2}), "table has -1 rows, must have 0 or more");
  EXPECT_EQ(memory, Ids(64, 9));
}

class HashRouting : public ::testing::TestWithParam<Backend> {};

TEST_P(HashRouting, WithoutLogitsAllWeighTheSame) {
  HashCase c;
  c.config = {.num_experts = 8,
              .top_k = 2,
              .routed_scaling_factor = 3.0f,
              .num_shared_experts = 1,
              .shared_expert_weight = 0.5f};
  c.table = {0, 1, 2, 3, 7, 4};
  c.token_ids = {2, -1, 0};
  const RoutedBatch routed = look_up(c, GetParam());
  EXPECT_EQ(routed.expert_ids, (Ids{7, 4, 8, -1, -1, -1, 0, 1, 8}));
  EXPECT_EQ(floats(routed.gate_weights),
            (std::vector<float>{1.5f, 1.5f, 0.5f, 0, 0, 0, 1.5f, 1.5f, 0.5f}));
  EXPECT_EQ(routed.tokens_per_expert, (std::vector<int64_t>{1, 1, 0, 0, 1, 0, 0, 1, 2}));
  EXPECT_EQ(routed.num_degenerate_rows, 0);
  c.config.renormalize = false;
  EXPECT_EQ(floats(look_up(c, GetParam()).gate_weights)[0], 3.0f);
}

TEST_P(HashRouting, WhatIsNotFiniteWeighsNothing) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  HashCase c;
  c.config = {.num_experts = 4, .top_k = 3};
  c.table = {0, 1, 2};
  c.token_ids = {0, 0};
  const BackendVector<float> values = {kInfinity, 1, 1, 9, kNaN, -kInfinity, kNaN, 9};
  c.logits = MatrixView<const float>(values.data(), 2, 4);
  for (const ScoreFunction score : kAllScores) {
    c.config.score_function = score;
    const RoutedBatch routed = look_up(c, GetParam());
    EXPECT_EQ(routed.expert_ids, (Ids{0, 1, 2, 0, 1, 2}));
    EXPECT_EQ(floats(routed.gate_weights), (std::vector<float>{0, 0.5f, 0.5f, 0, 0, 0}));
    EXPECT_EQ(routed.num_degenerate_rows, 1);
  }
}

/// A table that lists what Router would choose gives Router's bits.
TEST_P(HashRouting, WeightsAreThoseOfRouter) {
  RandomStream random(901);
  for (const ScoreFunction score : kAllScores) {
    for (const bool renormalize : {true, false}) {
      for (const int32_t top_k : {1, 2, 5, 8}) {
        RoutingCase c;
        c.config = {.num_experts = 24,
                    .top_k = top_k,
                    .score_function = score,
                    .renormalize = renormalize,
                    .routed_scaling_factor = 2.5f,
                    .num_shared_experts = 1};
        c.num_tokens = 20;
        c.with_losses = false;
        c.seed = random.bits();
        const RoutingBatch batch(c);
        const RoutedBatch expected =
            route(Router(c.config, Backend::kReference), c, batch.inputs());
        HashCase h;
        h.config = c.config;
        h.logits = batch.logits().view();
        for (int32_t token = 0; token < 20; ++token) {
          h.token_ids.push_back(token);
          const auto row = expected.expert_ids.begin() + token * c.config.num_slots();
          h.table.insert(h.table.end(), row, row + top_k);
        }
        EXPECT_EQ(difference(expected, look_up(h, GetParam())), "") << describe(c);
      }
    }
  }
}

class HashRefusals : public HashRouting {
 protected:
  /// What is said of a call with 4 experts of which two are listed, and logits of so many columns.
  std::string refusal(const Ids& tokens, const Ids& table, int64_t columns = 0,
                      bool losses = false) {
    const BackendVector<int32_t> token_ids(tokens.begin(), tokens.end());
    const BackendVector<int32_t> listed(table.begin(), table.end());
    const BackendVector<float> values(16, 0.0f);
    RoutingResult result;
    result.expert_ids = ids_.matrix();
    result.gate_weights = weights_.matrix();
    result.tokens_per_expert = counts_.vector();
    if (losses) result.loss_sums = counts_.vector();
    ConstTensorView logits;
    if (columns > 0) logits = MatrixView<const float>(values.data(), 2, columns);
    try {
      HashRouter({.num_experts = 4, .top_k = 2}, GetParam())
          .route({{token_ids.data(), static_cast<int64_t>(token_ids.size())},
                  {listed.data(), static_cast<int64_t>(listed.size()) / 2, 2},
                  logits},
                 result);
      finish_backends();
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "";
  }

  Guarded<int32_t> ids_{2, 2, 2};
  Guarded<float> weights_{2, 2, 2};
  Guarded<int64_t> counts_{1, 4, 4};
};

TEST_P(HashRefusals, Contract10_NameArgumentValueAndLimitAndWriteNothing) {
  const Ids good = {0, 1, 2, 3};
  EXPECT_EQ(refusal({0, 1}, good, 5), "logits has 5 columns, must have 4");
  EXPECT_EQ(refusal({0, 1, 1}, good), "expert_ids has 2 rows, must have 3");
  EXPECT_EQ(refusal({0, 1}, good, 0, true), "loss_sums has 4 elements, must be empty");
  EXPECT_THROW(HashRouter({.num_experts = 0, .top_k = 1}, GetParam()), InvalidArgument);
  EXPECT_THROW((void)HashRouter({.num_experts = 4, .top_k = 2}, GetParam()).workspace_bytes(-1),
               InvalidArgument);
  EXPECT_TRUE(ids_.untouched() && weights_.untouched() && counts_.untouched());
  EXPECT_EQ(refusal({0, 1}, good), "");
}

TEST_P(HashRefusals, Contract10_HostsNameIdsOutOfRangeAndWriteNothing) {
  if (GetParam() == Backend::kCuda) GTEST_SKIP() << "a device cannot refuse what it finds";
  EXPECT_EQ(refusal({0, 2}, {0, 1, 2, 3}),
            "token_ids[1] is 2, must be -1 or below the table's 2 rows");
  EXPECT_EQ(refusal({0, -2}, {0, 1, 2, 3}),
            "token_ids[1] is -2, must be -1 or below the table's 2 rows");
  EXPECT_EQ(refusal({0, 1}, {0, 1, 2, 4}), "table[1, 1] is 4, must be in [0, 4)");
  EXPECT_EQ(refusal({0, 1}, {0, -1, 2, 3}), "table[0, 1] is -1, must be in [0, 4)");
  EXPECT_EQ(refusal({0, 1}, {0, 1, 3, 3}), "table[1, 1] is 3, must not repeat within the row");
  EXPECT_TRUE(ids_.untouched() && weights_.untouched() && counts_.untouched());
  EXPECT_EQ(refusal({0, 0}, {0, 1, 9, 9}, 4), "") << "rows that are not used may hold anything";
}

/// What a device does with ids that a host refuses.
class DeviceHashRouting : public ::testing::Test {
 protected:
  void SetUp() override {
    if (backend() != Backend::kCuda) GTEST_SKIP() << "hosts refuse such ids";
  }
  static Backend backend() { return backend_variants().front().backend; }
};

TEST_F(DeviceHashRouting, Contract2_TokenIdsOutOfRangeArePadding) {
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  constexpr int32_t kLeast = std::numeric_limits<int32_t>::min();
  HashCase c;
  c.config = {.num_experts = 4, .top_k = 2, .num_shared_experts = 1};
  c.table = {0, 1, 2, 3};
  c.token_ids = {2, 1, kMost, -2, kLeast};
  const RoutedBatch routed = look_up(c, backend());
  EXPECT_EQ(routed.expert_ids, (Ids{-1, -1, -1, 2, 3, 4, -1, -1, -1, -1, -1, -1, -1, -1, -1}));
  for (size_t i = 0; i < routed.gate_weights.size(); ++i) {
    if (routed.expert_ids[i] >= 0) continue;
    EXPECT_EQ(routed.gate_weights[i], 0u);
  }
  EXPECT_EQ(routed.tokens_per_expert, (std::vector<int64_t>{0, 0, 1, 1, 1}));
  EXPECT_TRUE(routed.guards_intact);
  c.table = {};
  EXPECT_EQ(look_up(c, backend()).expert_ids, Ids(15, -1));
}

TEST_F(DeviceHashRouting, Contract2_ListedExpertsOutOfRangeAreNobody) {
  HashCase c;
  c.config = {.num_experts = 4, .top_k = 3};
  c.table = {3, 4, 1, -1, std::numeric_limits<int32_t>::max(), -5};
  c.token_ids = {0, 1};
  const RoutedBatch plain = look_up(c, backend());
  EXPECT_EQ(plain.expert_ids, (Ids{3, -1, 1, -1, -1, -1}));
  EXPECT_EQ(floats(plain.gate_weights), (std::vector<float>{1 / 3.0f, 0, 1 / 3.0f, 0, 0, 0}));
  EXPECT_EQ(plain.num_degenerate_rows, 0);
  const BackendVector<float> values = {9, 1, 9, 1, 1, 1, 1, 1};
  c.logits = MatrixView<const float>(values.data(), 2, 4);
  const RoutedBatch weighed = look_up(c, backend());
  EXPECT_EQ(weighed.expert_ids, plain.expert_ids);
  EXPECT_EQ(floats(weighed.gate_weights), (std::vector<float>{0.5f, 0, 0.5f, 0, 0, 0}));
  EXPECT_EQ(weighed.tokens_per_expert, (std::vector<int64_t>{0, 1, 0, 1}));
  EXPECT_EQ(weighed.num_degenerate_rows, 1);
}

TEST_F(DeviceHashRouting, RepeatedExpertsCountInEachSlot) {
  HashCase c;
  c.config = {.num_experts = 2, .top_k = 2};
  c.table = {1, 1};
  c.token_ids = {0};
  const BackendVector<float> values = {9, 1};
  c.logits = MatrixView<const float>(values.data(), 1, 2);
  const RoutedBatch routed = look_up(c, backend());
  EXPECT_EQ(routed.expert_ids, (Ids{1, 1}));
  EXPECT_EQ(floats(routed.gate_weights), (std::vector<float>{0.5f, 0.5f}));
  EXPECT_EQ(routed.tokens_per_expert, (std::vector<int64_t>{0, 2}));
}

TEST_P(HashRouting, NoTokensAreLegal) {
  HashCase c;
  c.config = {.num_experts = 4, .top_k = 2};
  EXPECT_EQ(look_up(c, GetParam()).tokens_per_expert, std::vector<int64_t>(4, 0));
}

std::vector<Backend> backends() {
  return {Backend::kReference, backend_variants().front().backend};
}

std::string test_name(const ::testing::TestParamInfo<Backend>& test) { return name_of(test.param); }

INSTANTIATE_TEST_SUITE_P(Backends, HashRouting, ::testing::ValuesIn(backends()), test_name);
INSTANTIATE_TEST_SUITE_P(Backends, HashRefusals, ::testing::ValuesIn(backends()), test_name);

TEST(HashRoutingConformance, Contract4_EveryBackendEqualsTheReference) {
  RandomStream random(911);
  for (int i = 0; i < 1200; ++i) {
    RoutingCase r;
    r.config.num_experts = random.pick(kExpertCounts);
    r.config.top_k =
        static_cast<int32_t>(1 + random.below(std::min(r.config.num_experts, kMaxTopK)));
    r.config.score_function = random.pick(kAllScores);
    r.num_tokens = random.chance(5) ? 1500 : random.below(20);
    if (r.num_tokens * r.config.num_experts > 100'000) r.num_tokens = 3;
    randomize(random, r);
    const RoutingBatch batch(r);
    HashCase c;
    c.config = r.config;
    c.weight_dtype = r.weight_dtype;
    c.padding = r.output_padding;
    if (random.chance(80)) c.logits = batch.logits().view();
    constexpr int64_t kVocabulary = 50;
    c.table.resize(static_cast<size_t>(kVocabulary * r.config.top_k));
    fill_hash_table(r.config.num_experts, r.seed, {c.table.data(), kVocabulary, r.config.top_k});
    for (int64_t token = 0; token < r.num_tokens; ++token) {
      c.token_ids.push_back(static_cast<int32_t>(random.below(kVocabulary + 1) - 1));
    }
    const RoutedBatch expected = look_up(c, Backend::kReference);
    for (const BackendVariant& variant : backend_variants()) {
      const ScopedCpuTarget target(variant.target);
      ASSERT_EQ(difference(expected, look_up(c, variant.backend, variant.threads)), "")
          << variant.name << ' ' << describe(r) << " iteration " << i;
    }
  }
}

}  // namespace
}  // namespace switchyard::test

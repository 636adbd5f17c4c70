// Expert capacity as the systems that this library re-creates have it, or should have had it.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "nlohmann/json.hpp"
#include "switchyard/permutation.h"
#include "switchyard/router.h"
#include "tests/permutation_case.h"

namespace switchyard::test {
namespace {

using nlohmann::json;

constexpr char kCases[] = SWITCHYARD_SOURCE_DIR "/../shared/parity/cases.json";

class ParityCapacity : public testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(kCases);
    if (!file) GTEST_SKIP() << kCases << " is not there";
    cases_ = json::parse(file)["cases"];
  }

  /// The case with this id; the test fails where there is none.
  json find(const std::string& id) const {
    for (const json& one : cases_) {
      if (one["id"] == id) return one;
    }
    ADD_FAILURE() << "no case " << id;
    return {};
  }

 private:
  json cases_;
};

ExpertCapacity by_factor(double factor) {
  return {.mode = ExpertCapacity::Mode::kFactor, .factor = factor};
}

void expect_capacities(const json& one) {
  const json& rows = one["inputs"]["rows"];
  ASSERT_EQ(rows.size(), one["expected"].size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto num_experts = rows[i][0].get<int32_t>();
    const auto top_k = rows[i][1].get<int32_t>();
    const auto num_tokens = rows[i][3].get<int64_t>();
    EXPECT_EQ(capacity_rows(by_factor(rows[i][2].get<double>()), num_tokens, top_k, num_experts),
              one["expected"][i].get<int64_t>())
        << rows[i];
  }
}

/// A batch routed by its probabilities as they are, then sorted under a capacity.
struct Outcome {
  PermutationCase batch;
  SortedBatch sorted;

  [[nodiscard]] bool kept(int64_t assignment) const {
    return sorted.assignment_to_row[static_cast<size_t>(assignment)] >= 0;
  }
};

Outcome sort_ids(int32_t num_experts, int32_t top_k, double factor, std::vector<int32_t> ids,
                 std::vector<float> weights, const PermuterVariant& variant) {
  Outcome outcome;
  outcome.batch.config = {
      .num_experts = num_experts, .top_k = top_k, .capacity = by_factor(factor)};
  outcome.batch.num_tokens = static_cast<int64_t>(ids.size()) / top_k;
  outcome.batch.ids = std::move(ids);
  outcome.batch.weights = std::move(weights);
  outcome.sorted = sort_guarded(variant, outcome.batch);
  return outcome;
}

Outcome route_and_sort(const json& inputs, const PermuterVariant& variant) {
  const auto rows = inputs["probs"].get<std::vector<std::vector<float>>>();
  const auto top_k = inputs["k"].get<int32_t>();
  const auto num_tokens = static_cast<int64_t>(rows.size());
  const auto num_experts = static_cast<int32_t>(rows.front().size());
  std::vector<float> probabilities;
  for (const auto& row : rows) probabilities.insert(probabilities.end(), row.begin(), row.end());
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens * top_k));
  std::vector<float> weights(ids.size());
  const Router router({.num_experts = num_experts,
                       .top_k = top_k,
                       .score_function = ScoreFunction::kIdentity,
                       .renormalize = false},
                      Backend::kReference);
  const MatrixView<const float> logits(probabilities.data(), num_tokens, num_experts);
  router.route({.logits = logits},
               {.expert_ids = {ids.data(), num_tokens, top_k},
                .gate_weights = MatrixView(weights.data(), num_tokens, int64_t{top_k})});
  return sort_ids(num_experts, top_k, inputs["factor"].get<double>(), ids, weights, variant);
}

TEST_F(ParityCapacity, B6_capacity_exact) { expect_capacities(find("B6.capacity_exact")); }

TEST_F(ParityCapacity, B6_fix_capacity_floor) { expect_capacities(find("B6.fix.capacity_floor")); }

TEST_F(ParityCapacity, C5_capacity) { expect_capacities(find("C5.capacity")); }

TEST_F(ParityCapacity, B6_fix_decode_batch_of_one) {
  const json one = find("B6.fix.decode_batch_of_one");
  for (const PermuterVariant& variant : sorting_variants()) {
    SCOPED_TRACE(variant.name);
    const Outcome outcome = route_and_sort(one["inputs"], variant);
    const json& assignments = one["expected"]["assignments"];
    const int64_t top_k = outcome.batch.config.top_k;
    ASSERT_EQ(outcome.batch.num_tokens, static_cast<int64_t>(assignments.size()));
    for (int64_t token = 0; token < outcome.batch.num_tokens; ++token) {
      const json& expected = assignments[static_cast<size_t>(token)];
      ASSERT_EQ(static_cast<int64_t>(expected.size()), top_k);
      for (int64_t slot = 0; slot < top_k; ++slot) {
        const json& pair = expected[static_cast<size_t>(slot)];
        EXPECT_TRUE(outcome.kept(token * top_k + slot));
        EXPECT_EQ(outcome.batch.id_at(token, slot), pair[0].get<int32_t>());
        EXPECT_NEAR(outcome.batch.weight_at(token, slot), pair[1].get<double>(),
                    one["tolerance"].get<double>());
      }
    }
    EXPECT_EQ(outcome.sorted.totals.fully_dropped_tokens,
              one["expected"]["tokens_dropped"].get<int64_t>());
  }
}

TEST_F(ParityCapacity, B6_topk_capacity) {
  const json one = find("B6.topk_capacity");
  const json& expected = one["expected"];
  for (const PermuterVariant& variant : sorting_variants()) {
    SCOPED_TRACE(variant.name);
    const Outcome outcome = route_and_sort(one["inputs"], variant);
    const PermutationConfig& config = outcome.batch.config;
    EXPECT_EQ(
        capacity_rows(config.capacity, outcome.batch.num_tokens, config.top_k, config.num_experts),
        expected["capacity"].get<int64_t>());
    EXPECT_EQ(outcome.batch.ids, expected["indices"].get<std::vector<int32_t>>());
    EXPECT_EQ(outcome.sorted.tokens_per_expert, expected["counts"].get<std::vector<int64_t>>());
    std::vector<std::vector<int32_t>> kept(static_cast<size_t>(outcome.batch.num_tokens));
    for (int64_t token = 0; token < outcome.batch.num_tokens; ++token) {
      for (int64_t slot = 0; slot < config.top_k; ++slot) {
        if (!outcome.kept(token * config.top_k + slot)) continue;
        kept[static_cast<size_t>(token)].push_back(outcome.batch.id_at(token, slot));
      }
    }
    EXPECT_EQ(kept, expected["assigned_tokens"].get<std::vector<std::vector<int32_t>>>());
  }
}

TEST_F(ParityCapacity, B6_fix_drop_count) {
  const json one = find("B6.fix.drop_count");
  const json inputs = find(one["inputs"]["see"].get<std::string>())["inputs"];
  for (const PermuterVariant& variant : sorting_variants()) {
    SCOPED_TRACE(variant.name);
    const PermutationTotals totals = route_and_sort(inputs, variant).sorted.totals;
    EXPECT_EQ(totals.dropped_assignments, one["expected"]["assignments_dropped"].get<int64_t>());
    EXPECT_EQ(totals.fully_dropped_tokens, one["expected"]["tokens_fully_dropped"].get<int64_t>());
  }
}

Outcome sort_assignments_of(const json& inputs, const PermuterVariant& variant) {
  const auto ids = inputs["assignments"].get<std::vector<int32_t>>();
  return sort_ids(inputs["E"].get<int32_t>(), inputs["k"].get<int32_t>(),
                  inputs["factor"].get<double>(), ids, std::vector<float>(ids.size(), 1.0f),
                  variant);
}

TEST_F(ParityCapacity, C5_capacity_drop) {
  const json one = find("C5.capacity_drop");
  for (const PermuterVariant& variant : sorting_variants()) {
    SCOPED_TRACE(variant.name);
    const Outcome outcome = sort_assignments_of(one["inputs"], variant);
    std::vector<std::vector<int32_t>> accepted(static_cast<size_t>(outcome.batch.num_tokens));
    for (int64_t token = 0; token < outcome.batch.num_tokens; ++token) {
      if (!outcome.kept(token)) continue;
      accepted[static_cast<size_t>(token)].push_back(outcome.batch.id_at(token, 0));
    }
    EXPECT_EQ(accepted, one["expected"]["accepted"].get<std::vector<std::vector<int32_t>>>());
    EXPECT_EQ(outcome.sorted.totals.dropped_assignments,
              one["expected"]["total_dropped"].get<int64_t>());
  }
}

TEST_F(ParityCapacity, C5_fix_capacity_redistribution) {
  const json one = find("C5.fix.capacity_redistribution");
  for (const PermuterVariant& variant : sorting_variants()) {
    SCOPED_TRACE(variant.name);
    const auto counts = sort_assignments_of(one["inputs"], variant).sorted.tokens_per_expert;
    EXPECT_EQ(*std::max_element(counts.begin(), counts.end()),
              one["expected"]["max_tokens_on_any_expert"].get<int64_t>());
  }
}

}  // namespace
}  // namespace switchyard::test

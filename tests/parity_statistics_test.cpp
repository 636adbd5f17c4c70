// The numbers that other systems give for the same statistics, where they are right.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/load_statistics.h"

namespace switchyard {
namespace {

using Json = nlohmann::json;

/// Fetches one case, or skips the test where the cases are not there.
class ParityStatistics : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path path = SWITCHYARD_SOURCE_DIR "/../shared/parity/cases.json";
    if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is missing";
    std::ifstream file(path);
    cases_ = Json::parse(file).at("cases");
  }
  [[nodiscard]] const Json& get(const std::string& id) const {
    const auto found = std::find_if(cases_.begin(), cases_.end(),
                                    [&](const Json& entry) { return entry.at("id") == id; });
    if (found == cases_.end()) throw std::runtime_error("no case " + id);
    return *found;
  }

 private:
  Json cases_;
};

void expect_near(const Json& entry, const Json& expected, double actual) {
  const auto wanted = expected.get<double>();
  const double tolerance = entry.at("tolerance").get<double>() * std::max(1.0, std::abs(wanted));
  EXPECT_NEAR(actual, wanted, tolerance) << entry.at("id");
}

std::vector<int64_t> count(const Json& assignments, std::size_t num_experts) {
  std::vector<int64_t> loads(num_experts);
  for (const Json& expert : assignments) ++loads[expert.get<std::size_t>()];
  return loads;
}

VectorView<const int64_t> view(const std::vector<int64_t>& loads) {
  return {loads.data(), static_cast<int64_t>(loads.size())};
}

/// Lists of (expert, weight), one a token: what was kept of top_k choices each.
PermutationTotals totals_of(const Json& assignments, int64_t num_tokens, int64_t top_k) {
  PermutationTotals totals;
  for (const Json& token : assignments) {
    totals.kept_assignments += static_cast<int64_t>(token.size());
    totals.fully_dropped_tokens += token.empty() ? 1 : 0;
  }
  totals.dropped_assignments = num_tokens * top_k - totals.kept_assignments;
  return totals;
}

TEST_F(ParityStatistics, RoutingDecision) {
  const Json& entry = get("B5.decision");
  const Json& inputs = entry.at("inputs");
  const auto num_tokens = inputs.at("total_tokens").get<int64_t>();
  const PermutationTotals totals = totals_of(inputs.at("assignments"), num_tokens, 1);
  EXPECT_EQ(totals.dropped_assignments, entry.at("expected").at("tokens_dropped"));
  expect_near(entry, entry.at("expected").at("efficiency"),
              drop_rates(totals, num_tokens).assignments_kept);
  const auto loads = inputs.at("counts").get<std::vector<int64_t>>();
  expect_near(entry, entry.at("expected").at("cv"),
              summarize_load(view(loads)).coefficient_of_variation);
}

TEST_F(ParityStatistics, CoefficientOfVariation) {
  const Json& entry = get("B5.cv");
  const Json& rows = entry.at("inputs").at("rows");
  ASSERT_EQ(rows.size(), entry.at("expected").size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto loads = rows[i].get<std::vector<int64_t>>();
    expect_near(entry, entry.at("expected")[i],
                summarize_load(view(loads)).coefficient_of_variation);
  }
}

TEST_F(ParityStatistics, NoTokensMeanNoDrops) {
  const Json& entry = get("B5.fix.utilization_no_tokens");
  const DropRates rates = drop_rates({}, entry.at("inputs").at("total_tokens").get<int64_t>());
  expect_near(entry, entry.at("expected").at("routing_efficiency"), rates.assignments_kept);
  expect_near(entry, entry.at("expected").at("tokens_dropped_rate"), 1.0 - rates.tokens_served);
}

TEST_F(ParityStatistics, DropsAreNotHiddenByTopK) {
  const Json& entry = get("B5.fix.hidden_drops");
  const Json& inputs = entry.at("inputs");
  const Json& expected = entry.at("expected");
  const auto num_tokens = inputs.at("total_tokens").get<int64_t>();
  const PermutationTotals totals =
      totals_of(inputs.at("assignments"), num_tokens, inputs.at("top_k").get<int64_t>());
  EXPECT_EQ(totals.dropped_assignments, expected.at("assignments_dropped"));
  EXPECT_EQ(totals.fully_dropped_tokens, expected.at("tokens_fully_dropped"));
  const DropRates rates = drop_rates(totals, num_tokens);
  expect_near(entry, expected.at("efficiency_assignments"), rates.assignments_kept);
  expect_near(entry, expected.at("efficiency_tokens"), rates.tokens_served);
}

TEST_F(ParityStatistics, WeightEntropy) {
  const Json& entry = get("C5.entropy");
  const Json& rows = entry.at("inputs").at("rows");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto weights = rows[i].get<std::vector<float>>();
    expect_near(entry, entry.at("expected")[i],
                mean_weight_entropy({weights.data(), 1, static_cast<int64_t>(weights.size())}));
  }
}

TEST_F(ParityStatistics, EverythingOnOneExpert) {
  const Json& entry = get("C5.stats_one_hot");
  const Json& expected = entry.at("expected");
  const auto loads =
      count(entry.at("inputs").at("top1"), entry.at("inputs").at("num_experts").get<std::size_t>());
  const LoadSummary summary = summarize_load(view(loads));
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    expect_near(entry, expected.at("fractions")[expert],
                static_cast<double>(loads[expert]) / static_cast<double>(summary.total));
  }
  expect_near(entry, expected.at("imbalance_ratio"), summary.max_over_mean);
  expect_near(entry, expected.at("cv"), summary.coefficient_of_variation);
  expect_near(entry, expected.at("gini"), summary.gini);
}

TEST_F(ParityStatistics, Utilization) {
  const Json& entry = get("C5.utilization_skewed");
  const auto loads =
      count(entry.at("inputs").at("assignments"), entry.at("inputs").at("E").get<std::size_t>());
  std::vector<double> relative(loads.size());
  relative_load(view(loads), {relative.data(), static_cast<int64_t>(relative.size())});
  for (std::size_t expert = 0; expert < loads.size(); ++expert) {
    expect_near(entry, entry.at("expected")[expert], relative[expert]);
  }
}

TEST_F(ParityStatistics, OverflowBeyondCapacity) {
  const Json& entry = get("C5.balancer_overflow");
  const Json& inputs = entry.at("inputs");
  const auto num_experts = inputs.at("E").get<int32_t>();
  const ExpertCapacity capacity{.mode = ExpertCapacity::Mode::kFactor,
                                .factor = inputs.at("factor").get<double>()};
  const auto num_tokens = static_cast<int64_t>(inputs.at("record").size());
  const auto loads = count(inputs.at("query"), static_cast<std::size_t>(num_experts));
  EXPECT_EQ(overflow_assignments(view(loads), capacity_rows(capacity, num_tokens, 1, num_experts)),
            entry.at("expected").get<int64_t>());
}

}  // namespace
}  // namespace switchyard

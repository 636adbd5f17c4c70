// Statistics of loads and weights, on lists small enough to work out by hand.
#include "switchyard/load_statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "switchyard/errors.h"

namespace switchyard {
namespace {

LoadSummary summarize(const std::vector<int64_t>& loads) {
  return summarize_load({loads.data(), static_cast<int64_t>(loads.size())});
}

double entropy(const std::vector<float>& weights, int64_t rows) {
  const auto cols = static_cast<int64_t>(weights.size()) / rows;
  return mean_weight_entropy({weights.data(), rows, cols});
}

TEST(SummarizeLoad, EvenLoadIsBalanced) {
  const LoadSummary summary = summarize({5, 5, 5, 5});
  EXPECT_EQ(summary.total, 20);
  EXPECT_EQ(summary.max, 5);
  EXPECT_EQ(summary.min, 5);
  EXPECT_EQ(summary.mean, 5.0);
  EXPECT_EQ(summary.max_over_mean, 1.0);
  EXPECT_EQ(summary.balancedness, 1.0);
  EXPECT_EQ(summary.coefficient_of_variation, 0.0);
  EXPECT_EQ(summary.gini, 0.0);
  EXPECT_DOUBLE_EQ(summary.entropy, std::log(4.0));
  EXPECT_EQ(summary.num_idle, 0);
  EXPECT_EQ(summary.most_loaded, 0);
  EXPECT_EQ(summary.least_loaded, 0);
}

TEST(SummarizeLoad, EverythingOnOneExpert) {
  const LoadSummary summary = summarize({0, 8, 0, 0});
  EXPECT_EQ(summary.max_over_mean, 4.0);
  EXPECT_EQ(summary.balancedness, 0.25);
  EXPECT_DOUBLE_EQ(summary.coefficient_of_variation, std::numbers::sqrt3);
  EXPECT_DOUBLE_EQ(summary.gini, 0.75);
  EXPECT_EQ(summary.entropy, 0.0);
  EXPECT_FALSE(std::signbit(summary.entropy));
  EXPECT_EQ(summary.num_idle, 3);
  EXPECT_EQ(summary.most_loaded, 1);
  EXPECT_EQ(summary.least_loaded, 0);
}

TEST(SummarizeLoad, NothingIsEven) {
  for (const auto& loads : {std::vector<int64_t>{}, std::vector<int64_t>{0, 0}}) {
    const LoadSummary summary = summarize(loads);
    EXPECT_EQ(summary.total, 0);
    EXPECT_EQ(summary.mean, 0.0);
    EXPECT_EQ(summary.max_over_mean, 1.0);
    EXPECT_EQ(summary.balancedness, 1.0);
    EXPECT_EQ(summary.coefficient_of_variation, 0.0);
    EXPECT_EQ(summary.gini, 0.0);
    EXPECT_EQ(summary.entropy, 0.0);
  }
  EXPECT_EQ(summarize({}).most_loaded, -1);
  EXPECT_EQ(summarize({0, 0}).num_idle, 2);
}

TEST(SummarizeLoad, EqualLoadsGoToTheLowerExpert) {
  const LoadSummary summary = summarize({3, 7, 1, 7, 1});
  EXPECT_EQ(summary.most_loaded, 1);
  EXPECT_EQ(summary.least_loaded, 2);
}

TEST(SummarizeLoad, CountsPast32BitsAreExact) {
  const int64_t large = int64_t{1} << 40;
  const LoadSummary summary = summarize({large, large, 2 * large});
  EXPECT_EQ(summary.total, 4 * large);
  EXPECT_DOUBLE_EQ(summary.max_over_mean, 1.5);
}

TEST(SummarizeLoad, RefusesNegativeCountsAndOverflow) {
  EXPECT_THROW(summarize({1, -1}), InvalidArgument);
  EXPECT_THROW(summarize({std::numeric_limits<int64_t>::max(), 1}), InvalidArgument);
}

TEST(RelativeLoad, IsTheLoadOverTheMean) {
  const std::vector<int64_t> loads{1, 0, 3};
  std::vector<double> relative(3);
  relative_load({loads.data(), 3}, {relative.data(), 3});
  EXPECT_DOUBLE_EQ(relative[0], 0.75);
  EXPECT_EQ(relative[1], 0.0);
  EXPECT_DOUBLE_EQ(relative[2], 2.25);
}

TEST(RelativeLoad, WithoutLoadIsZero) {
  const std::vector<int64_t> loads{0, 0};
  std::vector<double> relative{7.0, 7.0};
  relative_load({loads.data(), 2}, {relative.data(), 2});
  EXPECT_EQ(relative, (std::vector<double>{0.0, 0.0}));
  relative_load({}, {});
  EXPECT_THROW(relative_load({loads.data(), 2}, {relative.data(), 1}), InvalidArgument);
}

TEST(OverflowAssignments, CountsWhatExceedsTheCapacityOfEachExpert) {
  const std::vector<int64_t> loads{4, 0, 2, 7};
  const VectorView<const int64_t> view{loads.data(), 4};
  EXPECT_EQ(overflow_assignments(view, 0), 13);
  EXPECT_EQ(overflow_assignments(view, 3), 5);
  EXPECT_EQ(overflow_assignments(view, 7), 0);
  EXPECT_EQ(overflow_assignments(view, std::numeric_limits<int64_t>::max()), 0);
  EXPECT_EQ(overflow_assignments({}, 0), 0);
  EXPECT_THROW(overflow_assignments(view, -1), InvalidArgument);
}

TEST(MeanWeightEntropy, IsScaleFreeAndMeansOverTokens) {
  const double half = -0.25 * std::log(0.25) - 0.75 * std::log(0.75);
  EXPECT_NEAR(entropy({0.25f, 0.75f, 5.0f, 5.0f}, 2), (half + std::log(2.0)) / 2, 1e-12);
}

TEST(MeanWeightEntropy, LeavesOutTokensWithoutUsableWeights) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_NEAR(entropy({0, 0, 1, 1, kNaN, 1, kInfinity, 1, -1, 2}, 5), std::log(2.0), 1e-12);
  EXPECT_EQ(entropy({0, 0}, 1), 0.0);
  EXPECT_EQ(mean_weight_entropy({}), 0.0);
}

TEST(MeanWeightEntropy, ReadsNothingBetweenRows) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> weights{1, 1, kNaN, 1, 1};
  EXPECT_NEAR(mean_weight_entropy({weights.data(), 2, 2, 3}), std::log(2.0), 1e-12);
}

TEST(DropRates, CountAssignmentsAndTokensApart) {
  const DropRates rates =
      drop_rates({.kept_assignments = 6, .dropped_assignments = 2, .fully_dropped_tokens = 1}, 4);
  EXPECT_EQ(rates.assignments_kept, 0.75);
  EXPECT_EQ(rates.tokens_served, 0.75);
}

TEST(DropRates, NothingDroppedOfNothing) {
  const DropRates rates = drop_rates({}, 0);
  EXPECT_EQ(rates.assignments_kept, 1.0);
  EXPECT_EQ(rates.tokens_served, 1.0);
  EXPECT_EQ(drop_rates({}, 3).assignments_kept, 1.0);
}

TEST(DropRates, RefuseImpossibleCounts) {
  EXPECT_THROW(drop_rates({.fully_dropped_tokens = 2}, 1), InvalidArgument);
  EXPECT_THROW(drop_rates({.kept_assignments = -1}, 1), InvalidArgument);
}

}  // namespace
}  // namespace switchyard

// The cost model: what it predicts by hand, and that fitting finds the link again.
#include "switchyard/exchange_cost.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "switchyard/errors.h"

namespace switchyard::test {
namespace {

TrafficMatrix all_pairs(int32_t num_ranks, int64_t rows) {
  TrafficMatrix traffic(num_ranks);
  for (int32_t i = 0; i < num_ranks; ++i) {
    for (int32_t j = 0; j < num_ranks; ++j) traffic.at(i, j) = rows;
  }
  return traffic;
}

TEST(ExchangeCost, AddsLatenciesAndBytesOfTheBusiestRank) {
  const ExchangeCostModel model{.ranks_per_node = 2, .node = {1.0, 100.0}, .network = {5.0, 10.0}};
  TrafficMatrix traffic(4);
  traffic.at(0, 1) = 1000;  // inside the node: 1 us + 1000 * 100 B / 100 GB/s
  EXPECT_DOUBLE_EQ(predict_seconds(model, traffic, 100), 2e-6);
  traffic.at(0, 2) = 1000;  // outside: 5 us + 10 us, at once
  EXPECT_DOUBLE_EQ(predict_seconds(model, traffic, 100), 15e-6);
  traffic.at(1, 2) = 1000;  // rank 2 receives twice as much, in two messages
  EXPECT_DOUBLE_EQ(predict_seconds(model, traffic, 100), 30e-6);
  traffic.at(3, 3) = 1 << 20;  // does not travel
  EXPECT_DOUBLE_EQ(predict_seconds(model, traffic, 100), 30e-6);
}

TEST(ExchangeCost, SharesANodesBandwidth) {
  const ExchangeCostModel model{
      .ranks_per_node = 4, .node = {1.0, 10.0}, .shares_node_bandwidth = true};
  EXPECT_DOUBLE_EQ(predict_seconds(model, all_pairs(4, 10), 1000), 3e-6 + 16e-6);
}

TEST(ExchangeCost, TakesNoTimeWithoutRows) {
  EXPECT_EQ(predict_seconds({}, TrafficMatrix(3), 100), 0.0);
  EXPECT_EQ(predict_seconds({}, TrafficMatrix(0), 100), 0.0);
}

TEST(ExchangeCost, FindsTheLinkAgain) {
  for (const bool shares : {false, true}) {
    const ExchangeCostModel model{
        .ranks_per_node = 4, .node = {3.0, 20.0}, .network = {}, .shares_node_bandwidth = shares};
    std::vector<ExchangeTiming> timings;
    for (int64_t bytes = 1024; bytes <= 1 << 26; bytes *= 4) {
      timings.push_back({4, bytes, predict_seconds(model, all_pairs(4, 1), bytes / 4)});
    }
    const LinkCost link = fit_link(timings, shares);
    EXPECT_NEAR(link.latency_us, 3.0, 1e-6);
    EXPECT_NEAR(link.bandwidth_gbps, 20.0, 1e-6);
  }
}

TEST(ExchangeCost, CountsHowOftenMemoryIsReadAndWritten) {
  const ExchangeCostModel model{
      .ranks_per_node = 4, .node = {1.0, 10.0}, .shares_node_bandwidth = true, .row_passes = 1.5};
  EXPECT_DOUBLE_EQ(predict_seconds(model, all_pairs(4, 10), 1000), 3e-6 + 12e-6);
}

TEST(ExchangeCost, ARankAloneHasItsMemory) {
  const std::vector<ExchangeTiming> timings{{1, 1000, 1e-6}, {1, 4000, 4e-6}};
  const LinkCost link = fit_link(timings, true);
  EXPECT_EQ(link.latency_us, 0.0);
  EXPECT_DOUBLE_EQ(link.bandwidth_gbps, 1.0);
  const ExchangeCostModel model{.ranks_per_node = 1, .node = link, .shares_node_bandwidth = true};
  EXPECT_DOUBLE_EQ(predict_seconds(model, all_pairs(1, 2), 1000), 2e-6);
}

/// Of 10 GB/s up to 1 MB, and of 2 GB/s beyond.
std::vector<ExchangeTiming> cached_below_a_megabyte() {
  std::vector<ExchangeTiming> timings;
  for (int64_t bytes = 1 << 17; bytes <= 1 << 24; bytes *= 2) {
    timings.push_back({1, bytes, static_cast<double>(bytes) / (bytes > 1 << 20 ? 2e9 : 10e9)});
  }
  return timings;
}

TEST(ExchangeCost, FitsTheLinkOfASize) {
  const std::vector<ExchangeTiming> timings = cached_below_a_megabyte();
  EXPECT_NEAR(fit_link_near(1 << 18, timings, true).bandwidth_gbps, 10.0, 1e-9);
  EXPECT_NEAR(fit_link_near(1 << 21, timings, true).bandwidth_gbps, 2.0, 1e-9);
  // Smaller and larger than all.
  EXPECT_NEAR(fit_link_near(1, timings, true).bandwidth_gbps, 10.0, 1e-9);
  EXPECT_NEAR(fit_link_near(int64_t{1} << 40, timings, true).bandwidth_gbps, 2.0, 1e-9);
}

/// Between ranks, of 10 GB/s up to 1 MB, and of 2 GB/s beyond.
std::vector<ExchangeTiming> fast_below_a_megabyte(int32_t num_ranks, bool shares) {
  std::vector<ExchangeTiming> timings;
  for (int64_t bytes = 1 << 12; bytes <= 1 << 26; bytes *= 2) {
    const ExchangeCostModel model{.ranks_per_node = num_ranks,
                                  .node = {1.0, bytes > 1 << 20 ? 2.0 : 10.0},
                                  .network = {},
                                  .shares_node_bandwidth = shares};
    timings.push_back(
        {num_ranks, bytes, predict_seconds(model, all_pairs(num_ranks, 1), bytes / num_ranks)});
  }
  return timings;
}

TEST(ExchangeCost, FitsLinksToWhatAnExchangeMoves) {
  const std::vector<ExchangeTiming> own = fast_below_a_megabyte(4, false);
  for (const auto& [row_bytes, gbps] : {std::pair{1 << 14, 10.0}, {1 << 20, 2.0}}) {
    ExchangeCostModel model{.ranks_per_node = 4, .node = {7.0, 7.0}, .network = {8.0, 8.0}};
    fit_links(model, all_pairs(8, 1), row_bytes, {own, {}});
    EXPECT_NEAR(model.node.bandwidth_gbps, gbps, 1e-6);
    EXPECT_NEAR(model.node.latency_us, 1.0, 1e-3);
    EXPECT_EQ(model.network, (LinkCost{8.0, 8.0}));
    fit_links(model, all_pairs(8, 1), row_bytes, {{}, own});
    EXPECT_NEAR(model.network.bandwidth_gbps, gbps, 1e-6);
  }
  // The same for a memory that the ranks share, where what stays on its rank counts.
  const std::vector<ExchangeTiming> shared = fast_below_a_megabyte(4, true);
  TrafficMatrix traffic(4);
  ExchangeCostModel model{.ranks_per_node = 4, .shares_node_bandwidth = true};
  traffic.at(2, 2) = 4;
  fit_links(model, traffic, 1 << 18, {shared, {}});
  EXPECT_NEAR(model.node.bandwidth_gbps, 10.0, 1e-6);
  fit_links(model, traffic, 1 << 22, {shared, {}});
  EXPECT_NEAR(model.node.bandwidth_gbps, 2.0, 1e-6);
}

TEST(ExchangeCost, FitsLinksWithoutTrafficToTheSmallest) {
  const std::vector<ExchangeTiming> timings = fast_below_a_megabyte(2, false);
  ExchangeCostModel model{.ranks_per_node = 1};
  fit_links(model, TrafficMatrix(2), 100, {timings, timings});
  EXPECT_NEAR(model.node.bandwidth_gbps, 10.0, 1e-6);
  EXPECT_NEAR(model.network.bandwidth_gbps, 10.0, 1e-6);
  const ExchangeCostModel before = model;
  fit_links(model, all_pairs(2, 1), 1 << 24, {});
  EXPECT_EQ(model.node, before.node);
}

TEST(ExchangeCost, CountsPassesByTheWayOfTheRows) {
  const auto expect = [](RowWay way, double dispatch, double combine) {
    const ExchangePasses passes = exchange_passes(way, 4, 8);
    EXPECT_DOUBLE_EQ(passes.dispatch, dispatch);
    EXPECT_DOUBLE_EQ(passes.combine, combine);
  };
  expect(RowWay::kLent, 1.125, 1.125);
  expect(RowWay::kStaged, 1.125 + 2 * 0.75 / 8, 1.125 + 2 * 0.75);
  expect(RowWay::kMessages, 2.0, 3.125);
  EXPECT_THROW(exchange_passes(RowWay::kLent, 0, 1), InvalidArgument);
  EXPECT_THROW(exchange_passes(RowWay::kLent, 1, 0), InvalidArgument);
}

TEST(ExchangeCost, NeverFitsANegativeLatency) {
  const std::vector<ExchangeTiming> timings{{2, 1000, 0.9e-6}, {2, 1000000, 1.2e-3}};
  const LinkCost link = fit_link(timings, false);
  EXPECT_EQ(link.latency_us, 0.0);
  EXPECT_GT(link.bandwidth_gbps, 0.0);
}

TEST(ExchangeCost, RefusesWhatExplainsNothing) {
  const auto refusal = [](const std::vector<ExchangeTiming>& timings) {
    try {
      fit_link(timings, false);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal({{2, 8, 1e-6}}),
            "timings hold 1 measurements, must hold two of different sizes");
  EXPECT_EQ(refusal({{2, 8, 1e-6}, {2, 8, 1e-6}}),
            "timings hold 2 measurements, must hold two of different sizes");
  EXPECT_EQ(refusal({{1, 8, 1e-6}}), "timings[0].num_ranks is 1, must be 2 or more");
  EXPECT_THROW(fit_link(std::vector<ExchangeTiming>{{0, 8, 1e-6}}, true), InvalidArgument);
  EXPECT_THROW(fit_link_near(0, std::vector<ExchangeTiming>{{2, 8, 1e-6}}, true), InvalidArgument);
  EXPECT_THROW(fit_link_near(1, std::vector<ExchangeTiming>{{2, 8, 1e-6}}, true), InvalidArgument);
  EXPECT_THROW(fit_link_near(1, {}, true), InvalidArgument);
  const std::vector<ExchangeTiming> one{{2, 8, 1e-6}};
  ExchangeCostModel model;
  EXPECT_THROW(fit_links(model, TrafficMatrix(1), 1, {one, {}}), InvalidArgument);
  EXPECT_THROW(fit_links(model, TrafficMatrix(1), -1, {}), InvalidArgument);
  EXPECT_THROW(predict_seconds({.row_passes = 0.0}, TrafficMatrix(1), 1), InvalidArgument);
  EXPECT_EQ(refusal({{2, 8, 0.0}}), "timings[0] is 8 bytes in 0 s, both must be above 0");
  EXPECT_EQ(refusal({{2, 1000, 2e-6}, {2, 1000000, 1e-6}}), "timings do not grow with the size");
  EXPECT_THROW(predict_seconds({.ranks_per_node = 0}, TrafficMatrix(1), 1), InvalidArgument);
  EXPECT_THROW(predict_seconds({.node = {-1.0, 1.0}}, TrafficMatrix(1), 1), InvalidArgument);
  EXPECT_THROW(predict_seconds({.network = {1.0, 0.0}}, TrafficMatrix(1), 1), InvalidArgument);
  EXPECT_THROW(predict_seconds({}, TrafficMatrix(1), -1), InvalidArgument);
}

}  // namespace
}  // namespace switchyard::test

// RoutingStats from many threads: nothing is lost, records are seen whole, order does not show.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "stats/record_cells.h"
#include "stats/stats_cell.h"
#include "switchyard/routing_stats.h"
#include "tests/on_threads.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

constexpr int32_t kExperts = 37;

/// A batch whose numbers all follow from `size`, so that half a record shows.
struct Batch {
  std::vector<int64_t> counts;
  RoutingRecord routing;

  explicit Batch(int64_t size) : counts(kExperts, size) {
    routing.layer = 1;
    routing.num_tokens = size;
    routing.tokens_per_expert = {counts.data(), kExperts};
    routing.dropped_assignments = 2 * size;
    routing.balance_loss = 0.1 * static_cast<double>(size);
    routing.z_loss = 0.3 * static_cast<double>(size);
    routing.expert_capacity = size;
    routing.latency_ns = 1000 * size;
  }
};

void expect_whole(const RoutingSnapshot& snapshot) {
  const LayerStats& layer = snapshot.layers[1];
  const LayerSums& sums = layer.sums;
  ASSERT_EQ(sums.assignments, sums.tokens * kExperts);
  ASSERT_EQ(sums.dropped_assignments, 2 * sums.tokens);
  ASSERT_EQ(sums.balance_losses, sums.routings);
  ASSERT_EQ(sums.z_losses, sums.routings);
  ASSERT_EQ(sums.limited_routings, sums.routings);
  ASSERT_EQ(sums.capacity_exceeded, sums.routings);
  ASSERT_EQ(sums.capacity_use_sum.value(), static_cast<double>(sums.routings));
  ASSERT_EQ(layer.tokens_per_expert, std::vector<int64_t>(kExperts, sums.tokens));
  ASSERT_EQ(static_cast<int64_t>(layer.load_variances.size()),
            std::min(sums.routings, kVarianceHistory));
  ASSERT_EQ(snapshot.routing_latency.count(), sums.routings);
  ASSERT_EQ(snapshot.routing_latency.sum_ns(), 1000 * sums.tokens);
  ASSERT_EQ(snapshot.timed_tokens, sums.tokens);
  ASSERT_EQ(snapshot.timed_routings, sums.routings);
  ASSERT_EQ(static_cast<int64_t>(snapshot.routing_latency.recent_ns().size()),
            std::min(sums.routings, LatencySummary::kRecentLatencies));
}

class RoutingStatsThreads : public ::testing::TestWithParam<int> {
 protected:
  RoutingStats stats_{{.num_layers = 2, .num_experts = kExperts, .num_recorders = GetParam()}};
};

TEST_P(RoutingStatsThreads, TheirNumberAndOrderDoNotShow) {
  RoutingStats serial({.num_layers = 2, .num_experts = kExperts});
  for (int64_t size = 1; size <= 600; ++size) serial.record(Batch(size).routing);
  on_threads(6, [&](int thread) {
    for (int64_t size = 1 + thread; size <= 600; size += 6) stats_.record(Batch(size).routing);
  });
  const RoutingSnapshot snapshot = stats_.snapshot();
  const RoutingSnapshot expected = serial.snapshot();
  EXPECT_EQ(snapshot.layers[1].sums, expected.layers[1].sums);
  EXPECT_EQ(snapshot.layers[1].tokens_per_expert, expected.layers[1].tokens_per_expert);
  EXPECT_EQ(snapshot.routing_latency.histogram(), expected.routing_latency.histogram());
  EXPECT_EQ(snapshot.routing_latency.min_ns(), expected.routing_latency.min_ns());
  EXPECT_EQ(snapshot.routing_latency.max_ns(), expected.routing_latency.max_ns());
  EXPECT_EQ(snapshot.routing_latency.recent_percentile_ns(50),
            expected.routing_latency.recent_percentile_ns(50));
}

TEST_P(RoutingStatsThreads, SnapshotsHoldRecordsWhole) {
  constexpr int kRecorders = 5;
  constexpr int64_t kRounds = 1500;
  std::atomic<int> at_work{kRecorders};
  on_threads(kRecorders + 1, [&](int thread) {
    if (thread == kRecorders) {
      int64_t last = 0;
      while (at_work.load() > 0) {
        const RoutingSnapshot snapshot = stats_.snapshot();
        expect_whole(snapshot);
        EXPECT_GE(snapshot.layers[1].sums.routings, last);
        last = snapshot.layers[1].sums.routings;
        EXPECT_GE(stats_.latency_percentile_ns(Phase::kRouting, 99.0), 0.0);
      }
      return;
    }
    const Batch batch(1 + thread);
    for (int64_t round = 0; round < kRounds; ++round) {
      stats_.record(batch.routing);
      stats_.record_residency(0, 1, 2);
      stats_.record_sacrificed_mass(0, 0.25);
    }
    --at_work;
  });
  const RoutingSnapshot snapshot = stats_.snapshot();
  expect_whole(snapshot);
  EXPECT_EQ(snapshot.layers[1].sums.tokens, kRounds * (1 + 2 + 3 + 4 + 5));
  EXPECT_EQ(snapshot.layers[0].sums.hits, kRounds * kRecorders);
  EXPECT_EQ(snapshot.layers[0].sums.misses, 2 * kRounds * kRecorders);
  EXPECT_EQ(snapshot.layers[0].sums.sacrificed_mass_sum.value(), 0.25 * kRounds * kRecorders);
}

TEST_P(RoutingStatsThreads, EveryRecordIsInExactlyOneWindow) {
  constexpr int kRecorders = 4;
  constexpr int64_t kRounds = 1500;
  std::atomic<int> at_work{kRecorders};
  RoutingSnapshot sum = stats_.take_window();
  on_threads(kRecorders + 1, [&](int thread) {
    if (thread == kRecorders) {
      while (at_work.load() > 0) {
        const RoutingSnapshot window = stats_.take_window();
        expect_whole(window);
        sum.append(window);
      }
      return;
    }
    const Batch batch(1 + thread);
    for (int64_t round = 0; round < kRounds; ++round) stats_.record(batch.routing);
    --at_work;
  });
  sum.append(stats_.take_window());
  EXPECT_EQ(sum.layers[1].sums.routings, kRounds * kRecorders);
  EXPECT_EQ(sum.layers[1].sums.tokens, kRounds * (1 + 2 + 3 + 4));
  EXPECT_EQ(sum.routing_latency.sum_ns(), 1000 * sum.layers[1].sums.tokens);
  EXPECT_EQ(stats_.snapshot().total().sums, LayerSums{});
}

INSTANTIATE_TEST_SUITE_P(Recorders, RoutingStatsThreads, ::testing::Values(1, 2, 8));

/// One recorder that stops in the middle keeps neither others nor, in the end, readers from going
/// on.
TEST(RecordCells, ARecorderNeverWaitsForAnother) {
  struct Cell {
    int64_t sum = 0;
  };
  stats::RecordCells<Cell> cells(1, [] { return std::make_unique<Cell>(); });
  const auto add = [](auto access, Cell& cell) { decltype(access)::add(cell.sum, 1); };
  std::atomic<bool> is_stopped{false};
  std::atomic<bool> may_go_on{false};
  std::thread stopped([&] {
    cells.record([&](auto access, Cell& cell) {
      is_stopped = true;
      while (!may_go_on.load()) std::this_thread::yield();
      add(access, cell);
    });
  });
  while (!is_stopped.load()) std::this_thread::yield();
  for (int i = 0; i < 100; ++i) cells.record(add);  // would hang
  may_go_on = true;
  stopped.join();
  int64_t sum = 0;
  cells.visit([&](const Cell& cell) { sum += cell.sum; });
  EXPECT_EQ(sum, 101);
}

TEST(RecordCells, AReaderThatFailsGivesTheCellBack) {
  stats::RecordCells<int64_t> cells(1, [] { return std::make_unique<int64_t>(0); });
  EXPECT_THROW(cells.visit([](int64_t&) { throw std::bad_alloc(); }), std::bad_alloc);
  cells.record([](auto access, int64_t& cell) { decltype(access)::add(cell, 3); });
  int64_t sum = 0;
  cells.visit([&](const int64_t& cell) { sum += cell; });
  EXPECT_EQ(sum, 3);
}

TEST(SharedAccess, ChangesNumbersAsExclusiveAccessDoes) {
  RandomStream random(11);
  int64_t sums[2] = {};
  double maxima[2] = {};
  int64_t minima[2] = {1 << 20, 1 << 20};
  ExactSum exact[2];
  for (int i = 0; i < 1000; ++i) {
    const int64_t number = random.below(1000000);
    const double real = random.uniform() * 100.0;
    const ExactSum term = ExactSum::of(real);
    stats::ExclusiveAccess::add(sums[0], number);
    stats::SharedAccess::add(sums[1], number);
    stats::ExclusiveAccess::raise(maxima[0], real);
    stats::SharedAccess::raise(maxima[1], real);
    stats::ExclusiveAccess::lower(minima[0], number);
    stats::SharedAccess::lower(minima[1], number);
    stats::ExclusiveAccess::add(exact[0], term);
    stats::SharedAccess::add(exact[1], term);
  }
  EXPECT_EQ(sums[0], sums[1]);
  EXPECT_EQ(maxima[0], maxima[1]);
  EXPECT_EQ(minima[0], minima[1]);
  EXPECT_EQ(exact[0], exact[1]);
}

TEST(SharedAccess, FillsACellAsExclusiveAccessDoes) {
  stats::StatsCell exclusive(1, kExperts);
  stats::StatsCell shared(1, kExperts);
  RandomStream random(12);
  const auto fill = [](auto access, stats::StatsCell& cell, int64_t ticket, int64_t number,
                       const std::vector<int64_t>& counts) {
    using Access = decltype(access);
    Access::add(cell.layers[0].tokens, number);
    Access::add_all(cell.counts_of(0), {counts.data(), kExperts});
    cell.load_variances[0].add(access, ticket, 0.5 * static_cast<double>(number));
    cell.latencies[1].add(access, ticket, number);
  };
  std::vector<int64_t> counts(kExperts);
  for (int64_t ticket = 0; ticket < 1500; ++ticket) {
    for (int64_t& count : counts) count = random.below(3);
    const int64_t number = random.below(int64_t{1} << 40);
    fill(stats::ExclusiveAccess{}, exclusive, ticket, number, counts);
    fill(stats::SharedAccess{}, shared, ticket, number, counts);
  }
  const auto snapshot_of = [](const stats::StatsCell& cell) {
    stats::SnapshotCollector collector(1, kExperts);
    collector.add(cell);
    return collector.finish();
  };
  EXPECT_EQ(snapshot_of(shared), snapshot_of(exclusive));
  EXPECT_EQ(snapshot_of(shared).plan_latency.count(), 1500);
}

}  // namespace
}  // namespace switchyard::test

// Who sends how many rows to whom, seen from above.
#include "switchyard/global_plan.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "switchyard/errors.h"
#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

using Rows = std::vector<std::vector<int64_t>>;

Rows rows_of(const TrafficMatrix& traffic) {
  Rows rows(static_cast<std::size_t>(traffic.num_ranks()));
  for (int32_t source = 0; source < traffic.num_ranks(); ++source) {
    for (int32_t destination = 0; destination < traffic.num_ranks(); ++destination) {
      rows[static_cast<std::size_t>(source)].push_back(traffic.at(source, destination));
    }
  }
  return rows;
}

MatrixView<const int32_t> matrix(const std::vector<int32_t>& ids, int64_t top_k) {
  return {ids.data(), static_cast<int64_t>(ids.size()) / top_k, top_k};
}

TEST(ContiguousOffsets, GiveTheFirstPartsOneMore) {
  EXPECT_EQ(contiguous_offsets(7, 3), (std::vector<int64_t>{0, 3, 5, 7}));
  EXPECT_EQ(contiguous_offsets(0, 2), (std::vector<int64_t>{0, 0, 0}));
  EXPECT_EQ(contiguous_offsets(1, 2), (std::vector<int64_t>{0, 1, 1}));
}

TEST(GlobalPlan, CountsAssignmentsAndTokensApart) {
  // Two tokens on each of two ranks, two choices each; experts 0, 1 on rank 0 and 2, 3 on rank 1.
  const std::vector<int32_t> ids{0, 1, 2, 0, 3, 2, -1, -1};
  const GlobalPlan plan = plan_globally(ExpertPlacement::contiguous(4, 2), matrix(ids, 2));
  EXPECT_EQ(rows_of(plan.send_counts), (Rows{{3, 1}, {0, 2}}));
  EXPECT_EQ(rows_of(plan.deduplicated), (Rows{{2, 1}, {0, 1}}));
  EXPECT_EQ(plan.tokens_per_expert, (std::vector<int64_t>{2, 1, 2, 1}));
  EXPECT_EQ(plan.tokens_per_rank, (std::vector<int64_t>{3, 3}));
}

TEST(GlobalPlan, LetsCopiesTakeTurnsFromTheRankOn) {
  const auto placement = ExpertPlacement::from_slots(1, 2, std::vector<int32_t>{0, 0});
  const std::vector<int32_t> ids{0, 0, 0, 0, 0};  // three on rank 0, two on rank 1
  const GlobalPlan plan = plan_globally(placement, matrix(ids, 1));
  EXPECT_EQ(rows_of(plan.send_counts), (Rows{{2, 1}, {1, 1}}));
  EXPECT_EQ(plan.tokens_per_slot, (std::vector<int64_t>{3, 2}));
}

TEST(GlobalPlan, TakesSourceRanksInAnyOrder) {
  const std::vector<int32_t> ids{0, 1, 2, 3};
  const std::vector<int32_t> sources{1, 0, 1, 0};
  const GlobalPlan plan = plan_globally(ExpertPlacement::contiguous(4, 2), matrix(ids, 1),
                                        {.source_ranks = {sources.data(), 4}});
  EXPECT_EQ(rows_of(plan.send_counts), (Rows{{1, 1}, {1, 1}}));
}

TEST(GlobalPlan, CountsWhatAnExpertCannotTake) {
  const std::vector<int32_t> ids{0, 0, 0, 1};
  const GlobalPlan plan = plan_globally(ExpertPlacement::contiguous(2, 2), matrix(ids, 1),
                                        {.max_tokens_per_expert = 2});
  EXPECT_EQ(plan.overflow_assignments, 1);
}

TEST(GlobalPlan, TakesNoTokensAndMoreRanksThanExperts) {
  const GlobalPlan plan = plan_globally(ExpertPlacement::contiguous(2, 5), {nullptr, 0, 3});
  EXPECT_EQ(summarize_traffic(plan.send_counts).rows_moved, 0);
  EXPECT_EQ(summarize_traffic(plan.send_counts).compute_imbalance, 1.0);
}

TEST(GlobalPlan, RefusesWhatIsOutOfRange) {
  const std::vector<int32_t> ids{0, 4};
  const std::vector<int32_t> sources{0, 2};
  const auto placement = ExpertPlacement::contiguous(4, 2);
  EXPECT_EQ(refusal([&] { plan_globally(placement, matrix(ids, 2)); }),
            "expert_ids of token 0, slot 1 is 4, must be in [-1, 3]");
  EXPECT_EQ(refusal([&] {
              plan_globally(placement, matrix(ids, 1), {.source_ranks = {sources.data(), 2}});
            }),
            "source_ranks[1] is 2, must be in [0, 2)");
  EXPECT_EQ(refusal([&] {
              plan_globally(placement, matrix(ids, 1), {.source_ranks = {sources.data(), 1}});
            }),
            "source_ranks has 1 elements, must have 2");
  EXPECT_EQ(refusal([&] { plan_globally(placement, {}, {.max_tokens_per_expert = -1}); }),
            "max_tokens_per_expert is -1, must be 0 or more");
}

TEST(GlobalPlan, DeduplicatesToTheExpectedShareOfRanks) {
  // Of k choices among E experts on R equal ranks, a token visits R * (1 - C(E - E/R, k) / C(E,
  // k)).
  constexpr int32_t kExperts = 64;
  constexpr int32_t kTopK = 8;
  constexpr int32_t kRanks = 8;
  constexpr int64_t kTokens = 20000;
  RandomStream random(3);
  std::vector<int32_t> ids;
  std::vector<int32_t> experts(kExperts);
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t token = 0; token < kTokens; ++token) {
    for (std::size_t i = 0; i < kTopK; ++i) {
      std::swap(experts[i], experts[i + random.below(kExperts - i)]);
      ids.push_back(experts[i]);
    }
  }
  const GlobalPlan plan =
      plan_globally(ExpertPlacement::contiguous(kExperts, kRanks), matrix(ids, kTopK));
  int64_t visits = 0;
  for (const auto& row : rows_of(plan.deduplicated)) {
    visits = std::accumulate(row.begin(), row.end(), visits);
  }
  double missed = 1.0;
  for (int i = 0; i < kTopK; ++i) missed *= (56.0 - i) / (64.0 - i);
  EXPECT_NEAR(static_cast<double>(visits) / kTokens, kRanks * (1.0 - missed), 0.03);
}

TEST(Traffic, SeparatesSendingReceivingAndComputing) {
  TrafficMatrix traffic(3);
  const int64_t counts[3][3] = {{3, 1, 2}, {4, 0, 1}, {0, 5, 7}};
  for (int32_t i = 0; i < 3; ++i) {
    for (int32_t j = 0; j < 3; ++j) traffic.at(i, j) = counts[i][j];
  }
  const TrafficSummary summary = summarize_traffic(traffic);
  EXPECT_EQ(summary.rows_moved, 13);
  EXPECT_DOUBLE_EQ(summary.send_imbalance, 15.0 / 13.0);
  EXPECT_DOUBLE_EQ(summary.recv_imbalance, 18.0 / 13.0);
  EXPECT_DOUBLE_EQ(summary.compute_imbalance, 30.0 / 23.0);
  const TrafficVolume volume = traffic_volume(traffic, 16);
  EXPECT_EQ(volume.total_bytes, 208);
  EXPECT_EQ(volume.max_bytes_sent, 80);
  EXPECT_EQ(volume.max_bytes_received, 96);
  EXPECT_EQ(volume.max_bytes_any_rank(), 96);
}

TEST(Traffic, FollowsTheSlotsOfAPlan) {
  const std::vector<ExpertReplica> replicas = {{0, 0}, {1, 1}, {2, 1}};
  const ExpertPlacement placement = ExpertPlacement::from_replicas(3, 2, replicas);
  const std::vector<int64_t> counts = {5, 1, 2, 0, 7, 4};
  const TrafficMatrix traffic = traffic_of(placement, {counts.data(), 2, 3});
  EXPECT_EQ(traffic.at(0, 0), 5);
  EXPECT_EQ(traffic.at(0, 1), 3);
  EXPECT_EQ(traffic.at(1, 0), 0);
  EXPECT_EQ(traffic.at(1, 1), 11);
  EXPECT_EQ(refusal([&] {
              traffic_of(placement, {counts.data(), 3, 2});
            }),
            "slot_counts has 3 rows, must have 2");
  EXPECT_EQ(refusal([&] {
              traffic_of(placement, {counts.data(), 2, 2});
            }),
            "slot_counts has 2 columns, must have 3");
}

TEST(Traffic, RefusesNegativeSizes) {
  EXPECT_EQ(refusal([] { TrafficMatrix(-1); }), "num_ranks is -1, must be 0 or more");
  EXPECT_EQ(refusal([] { traffic_volume(TrafficMatrix(1), -4); }),
            "row_bytes is -4, must be 0 or more");
}

}  // namespace
}  // namespace switchyard::test

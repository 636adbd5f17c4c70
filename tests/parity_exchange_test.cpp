// The expert-parallel scheduler that this library re-creates: plans, volumes and refusals as
// numbers. It started every token on rank 0, took float32 for granted and called a plan balanced up
// to max / mean = 2.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "switchyard/errors.h"
#include "switchyard/expert_placement.h"
#include "switchyard/global_plan.h"
#include "tests/parity_cases.h"

namespace switchyard::test {
namespace {

using nlohmann::json;

constexpr double kBalanced = 2.0;
constexpr int64_t kFloatBytes = 4;

json rows_of(const TrafficMatrix& traffic) {
  json rows = json::array();
  for (int32_t source = 0; source < traffic.num_ranks(); ++source) {
    json row = json::array();
    for (int32_t destination = 0; destination < traffic.num_ranks(); ++destination) {
      row.push_back(traffic.at(source, destination));
    }
    rows.push_back(row);
  }
  return rows;
}

TrafficMatrix matrix_of(const json& rows) {
  TrafficMatrix traffic(static_cast<int32_t>(rows.size()));
  for (int32_t source = 0; source < traffic.num_ranks(); ++source) {
    for (int32_t destination = 0; destination < traffic.num_ranks(); ++destination) {
      traffic.at(source, destination) =
          rows[static_cast<std::size_t>(source)][static_cast<std::size_t>(destination)]
              .get<int64_t>();
    }
  }
  return traffic;
}

/// Where it clamped ids before planning, ours are refused; the clamp is its caller's then.
GlobalPlan plan(const json& inputs, bool clamps) {
  const auto num_experts = inputs.at("num_experts").get<int32_t>();
  auto ids = inputs.at("assignments").get<std::vector<int32_t>>();
  if (clamps) {
    for (int32_t& id : ids) id = std::min(id, num_experts - 1);
  }
  std::vector<int32_t> sources(ids.size());
  if (inputs.contains("source_rank")) {
    sources = inputs.at("source_rank").get<std::vector<int32_t>>();
  }
  const auto num_tokens = static_cast<int64_t>(ids.size());
  return plan_globally(
      ExpertPlacement::contiguous(num_experts, inputs.at("num_ranks").get<int32_t>()),
      {ids.data(), num_tokens, 1}, {.source_ranks = {sources.data(), num_tokens}});
}

TEST(ParityExchange, PlansWithAllTokensOnOneRank) {
  for (const char* id : {"C1.uniform", "C1.unbalanced", "C1.all_remote", "C1.nondiv_5_4",
                         "C1.out_of_range_clamped", "C1.empty"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const GlobalPlan global = plan(parity.at("inputs"), true);
    const json& expected = parity.at("expected");
    const TrafficSummary summary = summarize_traffic(global.send_counts);
    EXPECT_EQ(rows_of(global.send_counts), expected.at("send_counts")) << id;
    EXPECT_EQ(summary.rows_moved, expected.at("total_tokens_moved").get<int64_t>()) << id;
    EXPECT_NEAR(summary.send_imbalance, expected.at("max_imbalance_ratio").get<double>(), 1e-6)
        << id;
    EXPECT_EQ(summary.send_imbalance <= kBalanced, expected.at("is_balanced").get<bool>()) << id;
  }
}

TEST(ParityExchange, ReceivesTheTranspose) {
  SWITCHYARD_PARITY_CASE(parity, "C1.recv_is_transpose");
  const json sent = rows_of(plan(parity.at("inputs"), true).send_counts);
  const json& received = parity.at("expected");
  for (std::size_t i = 0; i < sent.size(); ++i) {
    for (std::size_t j = 0; j < sent.size(); ++j) EXPECT_EQ(sent[i][j], received[j][i]);
  }
}

TEST(ParityExchange, SummarizesAnyMatrix) {
  for (const char* id : {"C1.zero_ranks_empty", "C1.manual_matrix"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    const json& expected = parity.at("expected");
    const TrafficSummary summary = summarize_traffic(
        matrix_of(inputs.contains("send_counts") ? inputs.at("send_counts") : json::array()));
    EXPECT_EQ(summary.rows_moved, expected.at("total_tokens_moved").get<int64_t>()) << id;
    EXPECT_NEAR(summary.send_imbalance, expected.at("max_imbalance_ratio").get<double>(), 1e-6);
    EXPECT_EQ(summary.send_imbalance <= kBalanced, expected.at("is_balanced").get<bool>()) << id;
  }
}

TEST(ParityExchange, RefusesNoRanks) {
  SWITCHYARD_PARITY_CASE(parity, "C1.fix.zero_ranks");
  EXPECT_THROW(plan(parity.at("inputs"), true), InvalidArgument);
}

TEST(ParityExchange, CallsEvenWorkBalancedWhereverTokensStart) {
  SWITCHYARD_PARITY_CASE(parity, "C1.fix.uniform_flagged_unbalanced");
  const GlobalPlan global = plan(parity.at("inputs"), false);
  const json& expected = parity.at("expected");
  EXPECT_EQ(summarize_traffic(global.send_counts).compute_imbalance <= kBalanced,
            expected.at("is_load_balanced").get<bool>());
  EXPECT_EQ(json(global.tokens_per_rank), expected.at("local_token_counts"));
}

TEST(ParityExchange, KnowsWhereTokensStart) {
  SWITCHYARD_PARITY_CASE(parity, "C1.fix.token_home_ranks");
  const GlobalPlan global = plan(parity.at("inputs"), false);
  const json& expected = parity.at("expected");
  const TrafficSummary summary = summarize_traffic(global.send_counts);
  EXPECT_EQ(rows_of(global.send_counts), expected.at("send_counts"));
  EXPECT_EQ(summary.rows_moved, expected.at("total_tokens_moved").get<int64_t>());
  EXPECT_EQ(summary.send_imbalance, expected.at("send_imbalance").get<double>());
  EXPECT_EQ(summary.recv_imbalance, expected.at("recv_imbalance").get<double>());
}

// It calls max_bytes_any_rank what the busiest sender sends. So do these cases, and
// C2.fix.max_recv, which counts what is received too, contradicts them: by it C2.matrix would say
// 96 and not 80. Here the two have names of their own, and each case is held to the one that it
// means.
TEST(ParityExchange, CountsBytes) {
  for (const char* id : {"C2.uniform16", "C2.matrix", "C2.no_ranks"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    const json& expected = parity.at("expected");
    const TrafficMatrix traffic = inputs.contains("send_counts")
                                      ? matrix_of(inputs.at("send_counts"))
                                      : plan(inputs, true).send_counts;
    const TrafficVolume volume =
        traffic_volume(traffic, inputs.at("hidden_size").get<int64_t>() * kFloatBytes);
    EXPECT_EQ(volume.total_bytes, expected.at("total_bytes").get<int64_t>()) << id;
    EXPECT_EQ(volume.max_bytes_sent, expected.at("max_bytes_any_rank").get<int64_t>()) << id;
    EXPECT_NEAR(volume.mean_bytes_per_rank, expected.at("mean_bytes_per_rank").get<double>(), 1e-4);
    EXPECT_NEAR(volume.send_utilization(), expected.at("bandwidth_utilization").get<double>(),
                1e-6);
  }
}

TEST(ParityExchange, CountsWhatTheBusiestRankReceives) {
  SWITCHYARD_PARITY_CASE(parity, "C2.fix.max_recv");
  const json& inputs = parity.at("inputs");
  const TrafficVolume volume = traffic_volume(
      matrix_of(inputs.at("send_counts")), inputs.at("hidden_size").get<int64_t>() * kFloatBytes);
  EXPECT_EQ(volume.max_bytes_any_rank(),
            parity.at("expected").at("max_bytes_any_rank").get<int64_t>());
}

TEST(ParityExchange, TellsTheBusiestSenderFromTheBusiestRankWhereTheCasesContradictEachOther) {
  SWITCHYARD_PARITY_CASE(parity, "C2.matrix");
  const json& inputs = parity.at("inputs");
  const TrafficVolume volume = traffic_volume(
      matrix_of(inputs.at("send_counts")), inputs.at("hidden_size").get<int64_t>() * kFloatBytes);
  EXPECT_EQ(volume.max_bytes_sent, 80);
  EXPECT_EQ(volume.max_bytes_any_rank(), 96);  // rank 1 receives 6 rows of 16 bytes
}

std::string refusal(int32_t num_experts, int32_t num_ranks) {
  try {
    ExpertPlacement::contiguous(num_experts, num_ranks);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "";
}

// The texts are this library's. Experts need not divide by the ranks, and rows may be empty.
TEST(ParityExchange, RefusesConfigsInTheSameOrder) {
  SWITCHYARD_PARITY_CASE(parity, "C3.config");
  ASSERT_EQ(parity.at("inputs").at("rows").size(), 7u);
  EXPECT_EQ(refusal(8, 4), "");
  EXPECT_EQ(refusal(7, 4), "");
  EXPECT_EQ(refusal(8, 0), "num_ranks is 0, must be in [1, 65536]");
  EXPECT_EQ(refusal(0, 4), "num_experts is 0, must be in [1, 4096]");
  EXPECT_EQ(refusal(0, 0), "num_ranks is 0, must be in [1, 65536]");
  EXPECT_EQ(refusal(4, 8), "");
}

TEST(ParityExchange, SharesExpertsOverTheRanks) {
  SWITCHYARD_PARITY_CASE(defaults, "C3.defaults");
  const json& per_rank = defaults.at("expected").at("experts_per_rank");
  EXPECT_EQ(ExpertPlacement::contiguous(8, 4).num_slots_of(3), per_rank[0].get<int32_t>());
  EXPECT_EQ(ExpertPlacement::contiguous(7, 4).num_slots_of(3), per_rank[1].get<int32_t>());

  SWITCHYARD_PARITY_CASE(parity, "C3.local_indices");
  const auto placement =
      ExpertPlacement::contiguous(parity.at("inputs").at("num_experts").get<int32_t>(),
                                  parity.at("inputs").at("num_ranks").get<int32_t>());
  json indices = json::array();
  for (const json& rank : parity.at("inputs").at("ranks")) {
    json experts = json::array();
    const auto index = rank.get<std::size_t>();
    if (rank.get<int32_t>() < placement.num_ranks()) {
      for (int32_t slot = placement.slot_offsets()[index];
           slot < placement.slot_offsets()[index + 1]; ++slot) {
        experts.push_back(placement.slot_to_expert()[static_cast<std::size_t>(slot)]);
      }
    }
    indices.push_back(experts);
  }
  EXPECT_EQ(indices, parity.at("expected"));
}

TEST(ParityExchange, Schedules) {
  for (const char* id : {"C3.schedule_uniform", "C3.empty"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    const json& expected = parity.at("expected");
    const GlobalPlan global = plan(inputs, false);
    EXPECT_EQ(json(global.tokens_per_rank), expected.at("local_token_counts")) << id;
    EXPECT_EQ(summarize_traffic(global.send_counts).compute_imbalance <= kBalanced,
              expected.at("is_load_balanced").get<bool>());
    EXPECT_EQ(
        traffic_volume(global.send_counts, inputs.at("hidden_size").get<int64_t>() * kFloatBytes)
            .total_bytes,
        expected.at("total_bytes").get<int64_t>());
  }
}

TEST(ParityExchange, RefusesUnknownExperts) {
  SWITCHYARD_PARITY_CASE(parity, "C3.errors");
  json inputs = parity.at("inputs");
  inputs["assignments"] = inputs.at("rows")[1].at("assignments");
  try {
    plan(inputs, false);
    FAIL() << "expert 4 of 4 was taken";
  } catch (const InvalidArgument& error) {
    EXPECT_STREQ(error.what(), "expert_ids of token 0, slot 0 is 4, must be in [-1, 3]");
  }
}

}  // namespace
}  // namespace switchyard::test

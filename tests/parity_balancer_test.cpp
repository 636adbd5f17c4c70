// Families D1, D2 and D4: shards, their balance, and a router that sees the whole hidden state.
#include <gtest/gtest.h>

#include <cmath>

#include "switchyard/buffer.h"
#include "switchyard/load_balancer.h"
#include "switchyard/router.h"
#include "tests/parity_cases.h"

namespace switchyard::test {
namespace {

using nlohmann::json;

ShardMetrics metrics_of(int64_t num_layers, const json& latencies) {
  ShardMetrics metrics(num_layers);
  for (const json& us : latencies) metrics.record(us.get<double>());
  return metrics;
}

/// Whole microseconds here as there; what is below one is in the case of truncation.
TEST(ParityBalancer, D1Record) {
  SWITCHYARD_PARITY_CASE(parity, "D1.record");
  const json& inputs = parity.at("inputs");
  const json& expected = parity.at("expected");
  const ShardMetrics metrics = metrics_of(inputs.at("layer_count"), inputs.at("us"));
  EXPECT_EQ(metrics.num_forwards(), expected.at("forwards"));
  EXPECT_EQ(metrics.total_us(), expected.at("total"));
  EXPECT_EQ(metrics.min_us(), expected.at("min"));
  EXPECT_EQ(metrics.max_us(), expected.at("max"));
  EXPECT_EQ(metrics.mean_us(), expected.at("avg"));
  EXPECT_EQ(metrics.last_us(), expected.at("last"));
  EXPECT_EQ(std::floor(metrics.mean_us_per_layer()), expected.at("avg_per_layer"));
}

TEST(ParityBalancer, D1PerLayer) {
  SWITCHYARD_PARITY_CASE(parity, "D1.per_layer");
  const json& inputs = parity.at("inputs");
  const ShardMetrics metrics = metrics_of(inputs.at("layer_count"), inputs.at("us"));
  EXPECT_EQ(metrics.mean_us(), parity.at("expected")[0]);
  EXPECT_EQ(metrics.mean_us_per_layer(), parity.at("expected")[1]);
}

TEST(ParityBalancer, D1Truncation) {
  SWITCHYARD_PARITY_CASE(parity, "D1.fix.truncation");
  size_t next = 0;
  for (const json& row : parity.at("inputs").at("rows")) {
    const double expected = parity.at("expected")[next++];
    EXPECT_NEAR(metrics_of(row[0], row[1]).mean_us_per_layer(), expected,
                parity_tolerance(parity, expected));
  }
}

TEST(ParityBalancer, D1Empty) {
  SWITCHYARD_PARITY_CASE(parity, "D1.empty");
  const ShardMetrics metrics(parity.at("inputs").at("layer_count"));
  EXPECT_EQ(metrics.mean_us(), parity.at("expected").at("avg"));
  EXPECT_EQ(metrics.mean_us_per_layer(), parity.at("expected").at("per_layer"));
  EXPECT_TRUE(std::isinf(metrics.min_us()));  // there: the largest number
}

TEST(ParityBalancer, D1DefaultMin) {
  SWITCHYARD_PARITY_CASE(parity, "D1.fix.default_min");
  ShardMetrics metrics;
  metrics.record(5.0);
  EXPECT_EQ(metrics.min_us(), parity.at("expected").at("min"));
}

BalanceDecision evaluate(const json& inputs) {
  LoadBalancer balancer({.min_samples = inputs.at("min_samples").get<int64_t>(),
                         .imbalance_threshold = inputs.at("threshold").get<double>()});
  for (const json& shard : inputs.at("shards")) {
    balancer.add_shard(shard[0], shard[1]);
    const int count = inputs.value("records_each", 1);
    for (int i = 0; i < count; ++i) balancer.record(shard[0].get<std::string>(), shard[2]);
  }
  return balancer.evaluate();
}

TEST(ParityBalancer, D2DecisionsWithoutAChange) {
  for (const char* id :
       {"D2.balanced", "D2.min_samples_0_no_data", "D2.all_latencies_truncate_to_0"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    EXPECT_EQ(parity.at("expected").at("decision"), "Balanced");
    EXPECT_EQ(evaluate(parity.at("inputs")).status, BalanceStatus::kBalanced) << id;
  }
  SWITCHYARD_PARITY_CASE(parity, "D2.insufficient");
  EXPECT_EQ(evaluate(parity.at("inputs")).status, BalanceStatus::kInsufficientData);
}

TEST(ParityBalancer, D2Inverse) {
  SWITCHYARD_PARITY_CASE(parity, "D2.inverse");
  const json& expected = parity.at("expected");
  const BalanceDecision decision = evaluate(parity.at("inputs"));
  EXPECT_EQ(decision.status, BalanceStatus::kRebalance);
  for (size_t i = 0; i < decision.shards.size(); ++i) {
    EXPECT_EQ(decision.shards[i], expected.at("suggested")[i][0]);
    EXPECT_EQ(decision.suggested_layers[i], expected.at("suggested")[i][1]);
  }
  EXPECT_NEAR(decision.estimated_speedup, expected.at("estimated_speedup").get<double>(), 1e-6);
  EXPECT_EQ(decision.reason, expected.at("reason"));
}

TEST(ParityBalancer, D2ZeroLatencyShard) {
  SWITCHYARD_PARITY_CASE(parity, "D2.fix.zero_latency_shard_starved");
  const json& expected = parity.at("expected");
  const BalanceDecision decision = evaluate(parity.at("inputs"));
  EXPECT_EQ(decision.status, BalanceStatus::kRebalance);
  EXPECT_EQ(decision.suggested_us, expected.at("bottleneck_us"));
  EXPECT_EQ(decision.estimated_speedup, expected.at("estimated_speedup"));
  const std::vector<int64_t>& layers = decision.suggested_layers;
  ASSERT_EQ(layers.size(), 3u);
  EXPECT_GE(layers[0], layers[1]);
  EXPECT_GE(layers[1], layers[2]);
  EXPECT_GE(layers[2], 1);
  EXPECT_EQ(layers[0] + layers[1] + layers[2], 24);
}

TEST(ParityBalancer, D2WorseSuggestion) {
  SWITCHYARD_PARITY_CASE(parity, "D2.fix.worse_suggestion");
  const BalanceDecision decision = evaluate(parity.at("inputs"));
  EXPECT_EQ(decision.status, BalanceStatus::kBalanced);
  EXPECT_EQ(decision.reason, parity.at("expected").at("reason"));
}

/// A Router takes logits, of which every one is used; the source dropped most of the hidden state
/// on the way to them. So does every one of 64 features here decide alone.
TEST(ParityBalancer, D4EveryFeatureCounts) {
  SWITCHYARD_PARITY_CASE(parity, "D4.fix.new_shape");
  const json& inputs = parity.at("inputs");
  const int64_t hidden = inputs.at("hidden_dim");
  const int32_t num_experts = inputs.at("num_experts");
  ASSERT_EQ(parity.at("expected").at("used_hidden_dim"), hidden);
  const Router router({.num_experts = num_experts, .top_k = 1}, Backend::kCpu);
  Buffer<std::byte> workspace(router.workspace_bytes(hidden));
  Buffer<float> logits(hidden * num_experts);
  for (int64_t feature = 0; feature < hidden; ++feature) {  // token i has feature i alone
    for (int64_t expert = 0; expert < num_experts; ++expert) {
      logits[feature * num_experts + expert] = feature % num_experts == expert ? 1.0f : 0.0f;
    }
  }
  Buffer<int32_t> ids(hidden);
  Buffer<float> weights(hidden);
  router.route({.logits = MatrixView<const float>(logits.data(), hidden, num_experts)},
               {.expert_ids = ids.matrix(hidden, 1), .gate_weights = weights.matrix(hidden, 1)},
               workspace.bytes());
  for (int64_t feature = 0; feature < hidden; ++feature) {
    EXPECT_EQ(ids[feature], feature % num_experts);
  }
}

}  // namespace
}  // namespace switchyard::test

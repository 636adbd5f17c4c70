// Layers between shards of different speed: the best whole-number split, when to say so, when not.
#include "switchyard/load_balancer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "tests/random_stream.h"
#include "tests/refusal.h"

namespace switchyard::test {
namespace {

using std::chrono::seconds;
using TimePoint = std::chrono::steady_clock::time_point;

/// The smallest cost of all splits, by trying them.
double best_by_force(const std::vector<double>& us_per_layer, int64_t num_layers,
                     int64_t min_layers, BalanceObjective objective) {
  double best = std::numeric_limits<double>::infinity();
  const std::function<void(size_t, int64_t, double)> choose = [&](size_t shard, int64_t left,
                                                                  double cost) {
    const auto with = [&](int64_t layers) {
      const double time = us_per_layer[shard] * static_cast<double>(layers);
      return objective == BalanceObjective::kThroughput ? std::max(cost, time) : cost + time;
    };
    if (shard + 1 == us_per_layer.size()) {
      if (left >= min_layers) best = std::min(best, with(left));
      return;
    }
    for (int64_t layers = min_layers; layers <= left; ++layers) {
      choose(shard + 1, left - layers, with(layers));
    }
  };
  choose(0, num_layers, 0.0);
  return best;
}

void record_each(LoadBalancer& balancer, const std::string& shard, double us, int count) {
  for (int i = 0; i < count; ++i) balancer.record(shard, us);
}

TEST(LayerSplits, AreTheBestOfAll) {
  RandomStream random(4);
  for (int trial = 0; trial < 3000; ++trial) {
    const int64_t num_shards = 1 + random.below(4);
    const int64_t min_layers = random.below(3);
    const int64_t num_layers = num_shards * min_layers + random.below(14);
    std::vector<double> times;
    for (int64_t i = 0; i < num_shards; ++i) {
      times.push_back(random.chance(30) ? static_cast<double>(1 + random.below(4))
                                        : std::exp(2.0 * random.normal()));
    }
    for (const auto objective : {BalanceObjective::kThroughput, BalanceObjective::kLatency}) {
      const LayerSplit split = split_layers(times, num_layers, min_layers, objective);
      EXPECT_EQ(std::accumulate(split.layers.begin(), split.layers.end(), int64_t{0}), num_layers);
      for (const int64_t layers : split.layers) EXPECT_GE(layers, min_layers);
      const double best = best_by_force(times, num_layers, min_layers, objective);
      EXPECT_LE(split.cost, best * (1.0 + 1e-12));
    }
  }
}

TEST(LayerSplits, GiveEqualShardsTheSpareLayersFromTheFirst) {
  const std::vector<double> times{2.0, 2.0, 2.0};
  EXPECT_EQ(split_layers(times, 8, 1).layers, (std::vector<int64_t>{3, 3, 2}));
  EXPECT_EQ(split_layers(times, 8, 1, BalanceObjective::kLatency).layers,
            (std::vector<int64_t>{6, 1, 1}));
}

TEST(LayerSplits, RefuseByNameAndValue) {
  const std::vector<double> bad{1.0, std::nan("")};
  EXPECT_EQ(refusal([&] { split_layers(bad, 4, 1); }),
            "us_per_layer[1] is nan, must be finite and above 0");
  EXPECT_EQ(refusal([&] { split_layers({}, 4, 1); }), "us_per_layer is empty");
  const std::vector<double> good{1.0, 1.0};
  EXPECT_NE(refusal([&] { split_layers(good, 3, 2); }).find("num_layers is 3, must be in [4,"),
            std::string::npos);
  EXPECT_NE(refusal([&] { split_layers(good, 3, -1); }).find("min_layers_per_shard is -1"),
            std::string::npos);
}

TEST(ShardMetrics, ForgetOldForwards) {
  ShardMetrics metrics(4, 3);
  for (const double us : {100.0, 7.0, 8.0, 9.0}) metrics.record(us);
  EXPECT_EQ(metrics.num_forwards(), 4);
  EXPECT_EQ(metrics.num_samples(), 3);
  EXPECT_EQ(metrics.max_us(), 9.0);
  EXPECT_EQ(metrics.mean_us(), 8.0);
  EXPECT_EQ(metrics.mean_us_per_layer(), 2.0);
}

TEST(ShardMetrics, RefuseWhatIsNoTime) {
  ShardMetrics metrics(1);
  EXPECT_EQ(refusal([&] { metrics.record(std::nan("")); }),
            "latency_us is nan, must be finite and 0 or more");
  EXPECT_EQ(refusal([&] { metrics.record(-1.0); }),
            "latency_us is -1, must be finite and 0 or more");
  EXPECT_EQ(metrics.num_samples(), 0);
  EXPECT_NE(refusal([] { ShardMetrics bad(-1); }).find("num_layers is -1"), std::string::npos);
  EXPECT_NE(refusal([] { ShardMetrics bad(1, 0); }).find("window is 0"), std::string::npos);
}

class LoadBalancers : public testing::Test {
 protected:
  LoadBalancer balancer(LoadBalancerConfig config = {}) {
    config.clock = [this] { return now_; };
    if (config.min_samples == 100) config.min_samples = 1;
    LoadBalancer made(config);
    made.add_shard("fast", 8);
    made.add_shard("slow", 8);
    return made;
  }

  TimePoint now_{};
};

TEST_F(LoadBalancers, SayTooSoonBetweenEvaluations) {
  LoadBalancer two = balancer();
  record_each(two, "fast", 80, 1);
  record_each(two, "slow", 800, 1);
  EXPECT_EQ(two.evaluate().status, BalanceStatus::kRebalance);
  now_ += seconds(59);
  const BalanceDecision soon = two.evaluate();
  EXPECT_EQ(soon.status, BalanceStatus::kTooSoon);
  EXPECT_TRUE(soon.suggested_layers.empty());
  now_ += seconds(1);
  EXPECT_EQ(two.evaluate().status, BalanceStatus::kRebalance);
  two.reset();
  EXPECT_EQ(two.evaluate().status, BalanceStatus::kInsufficientData);
}

TEST_F(LoadBalancers, TellWhoHasTooFewSamples) {
  LoadBalancer two = balancer();
  record_each(two, "fast", 80, 1);
  const BalanceDecision decision = two.evaluate();
  EXPECT_EQ(decision.status, BalanceStatus::kInsufficientData);
  EXPECT_EQ(decision.reason, "shard 'slow' has 0 samples, needs 1");
}

TEST_F(LoadBalancers, AdoptSuggestionsAndThenLetThemBe) {
  LoadBalancer two = balancer();
  record_each(two, "fast", 80, 1);
  record_each(two, "slow", 800, 1);
  const BalanceDecision decision = two.evaluate();
  EXPECT_EQ(decision.suggested_layers, (std::vector<int64_t>{15, 1}));
  EXPECT_EQ(decision.current_us, 800.0);
  EXPECT_EQ(decision.suggested_us, 150.0);
  two.apply(decision.suggested_layers);
  EXPECT_EQ(two.metrics("slow").num_samples(), 0);
  record_each(two, "fast", 150, 1);
  record_each(two, "slow", 100, 1);
  now_ += seconds(60);
  EXPECT_EQ(two.evaluate().status, BalanceStatus::kBalanced);
}

TEST_F(LoadBalancers, MayLetAShardGoIdle) {
  LoadBalancer two = balancer({.min_layers_per_shard = 0});
  record_each(two, "fast", 8, 1);
  record_each(two, "slow", 800, 1);
  EXPECT_EQ(two.evaluate().suggested_layers, (std::vector<int64_t>{16, 0}));
}

TEST_F(LoadBalancers, CountTheSumWhereShardsTakeTurns) {
  LoadBalancer two = balancer({.objective = BalanceObjective::kLatency});
  record_each(two, "fast", 80, 1);
  record_each(two, "slow", 800, 1);
  const BalanceDecision decision = two.evaluate();
  EXPECT_EQ(decision.current_us, 880.0);
  EXPECT_EQ(decision.suggested_us, 250.0);
  EXPECT_NEAR(decision.estimated_speedup, 3.52, 1e-12);
}

TEST_F(LoadBalancers, NeverSuggestWhatIsNoBetterByTheirOwnEstimate) {
  RandomStream random(12);
  int suggested = 0;
  for (int trial = 0; trial < 5000; ++trial) {
    LoadBalancer many({.min_samples = 1,
                       .objective = random.chance(50) ? BalanceObjective::kThroughput
                                                      : BalanceObjective::kLatency});
    const int64_t num_shards = 2 + random.below(4);
    for (int64_t i = 0; i < num_shards; ++i) {
      many.add_shard(std::to_string(i), 1 + random.below(12));
      many.record(std::to_string(i), static_cast<double>(1 + random.below(2000)));
    }
    const BalanceDecision decision = many.evaluate();
    if (decision.status != BalanceStatus::kRebalance) {
      EXPECT_EQ(decision.estimated_speedup, 1.0);
      continue;
    }
    ++suggested;
    EXPECT_GT(decision.estimated_speedup, 1.0);
    EXPECT_EQ(std::accumulate(decision.suggested_layers.begin(), decision.suggested_layers.end(),
                              int64_t{0}),
              std::accumulate(decision.current_layers.begin(), decision.current_layers.end(),
                              int64_t{0}));
    for (const int64_t layers : decision.suggested_layers) EXPECT_GE(layers, 1);
  }
  EXPECT_GT(suggested, 1000);
}

TEST_F(LoadBalancers, CallBalancedWhatSaysNothing) {
  LoadBalancer nobody({.min_samples = 0});
  EXPECT_EQ(nobody.evaluate().status, BalanceStatus::kBalanced);
  LoadBalancer idle({.min_samples = 0});
  idle.add_shard("a", 0);
  idle.add_shard("b", 8);
  idle.record("b", 10.0);
  EXPECT_EQ(idle.evaluate().reason, "the speed of shard 'a' is unknown");
  LoadBalancer few({.min_samples = 0, .min_layers_per_shard = 8});
  few.add_shard("a", 1);
  few.add_shard("b", 8);
  few.record("a", 10.0);
  few.record("b", 10.0);
  EXPECT_EQ(few.evaluate().status, BalanceStatus::kBalanced);
}

TEST_F(LoadBalancers, RefuseByNameAndValue) {
  const auto refuses = [](const LoadBalancerConfig& config, const char* part) {
    const std::string message = refusal([&] { LoadBalancer refused(config); });
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  refuses({.min_samples = -1}, "min_samples is -1");
  refuses({.imbalance_threshold = std::nan("")}, "imbalance_threshold is nan");
  refuses({.imbalance_threshold = 0.5}, "imbalance_threshold is 0.5, must be finite and 1 or more");
  refuses({.evaluation_interval = seconds(-1)}, "evaluation_interval is -1000000000 ns");
  refuses({.window = 0}, "window is 0");
  refuses({.window = 50}, "window is 50, must hold min_samples, 100");
  refuses({.min_layers_per_shard = -1}, "min_layers_per_shard is -1");
  refuses({.clock = nullptr}, "clock is empty");

  LoadBalancer two = balancer();
  EXPECT_EQ(refusal([&] { two.add_shard("fast", 1); }), "shard 'fast' is there already");
  EXPECT_EQ(refusal([&] { two.record("new", 1.0); }), "there is no shard 'new'");
  const std::vector<int64_t> one{16};
  EXPECT_EQ(refusal([&] { two.apply(one); }), "num_layers has 1 elements, there are 2 shards");
  const std::vector<int64_t> more{16, 1};
  EXPECT_EQ(refusal([&] { two.apply(more); }), "num_layers has 17 layers in all, must have 16");
  EXPECT_EQ(two.metrics("fast").num_layers(), 8);
}

}  // namespace
}  // namespace switchyard::test

// Affinity gives what the system that it re-creates gives, or what it should have given.
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>

#include "switchyard/errors.h"
#include "switchyard/expert_affinity.h"
#include "tests/parity_cases.h"

namespace switchyard::test {
namespace {

using nlohmann::json;

ExpertAffinityConfig config_of(const json& inputs) {
  ExpertAffinityConfig config;
  config.num_experts = inputs.value("num_experts", 1);
  config.decay = inputs.value("decay", config.decay);
  config.activation_boost =
      inputs.value("activation_boost", inputs.value("boost", config.activation_boost));
  config.max_score = inputs.value("max_score", config.max_score);
  return config;
}

void update(ExpertAffinity& affinity, const std::vector<int32_t>& ids) {
  affinity.record({ids.data(), static_cast<int64_t>(ids.size()), 1});
  affinity.update();
}

/// Updates as the file writes them: a list of them, "40000 x []", or "[0] then 500 x []". Calls
/// `seen` after each.
void run(
    ExpertAffinity& affinity, const json& updates, const std::function<void()>& seen = [] {}) {
  if (updates.is_array()) {
    for (const json& one : updates) {
      if (one.is_string()) {
        run(affinity, one, seen);
      } else {
        update(affinity, one);
        seen();
      }
    }
    return;
  }
  const std::string text = updates;
  if (const size_t then = text.find(" then "); then != std::string::npos) {
    run(affinity, text.substr(0, then), seen);
    return run(affinity, text.substr(then + 6), seen);
  }
  const size_t times = text.find(" x ");
  const std::vector<int32_t> ids =
      json::parse(times == std::string::npos ? text : text.substr(times + 3));
  const int64_t repeats = times == std::string::npos ? 1 : std::atoll(text.c_str());
  for (int64_t i = 0; i < repeats; ++i) {
    update(affinity, ids);
    seen();
  }
}

std::vector<float> scores_of(const ExpertAffinity& affinity) {
  std::vector<float> scores(static_cast<size_t>(affinity.config().num_experts));
  affinity.scores({scores.data(), affinity.config().num_experts});
  return scores;
}

std::vector<int64_t> activations_of(const ExpertAffinity& affinity) {
  std::vector<int64_t> activations(static_cast<size_t>(affinity.config().num_experts));
  affinity.activations({activations.data(), affinity.config().num_experts});
  return activations;
}

std::vector<int32_t> top_of(const ExpertAffinity& affinity, int64_t k) {
  std::vector<int32_t> experts(static_cast<size_t>(k));
  experts.resize(static_cast<size_t>(affinity.top_k({experts.data(), k})));
  return experts;
}

json least_of(const ExpertAffinity& affinity, const std::vector<int32_t>& candidates) {
  const int32_t least =
      affinity.least({candidates.data(), static_cast<int64_t>(candidates.size())});
  return least < 0 ? json() : json(least);
}

class ParityAffinity : public ::testing::TestWithParam<Backend> {
 protected:
  static void expect_near(const json& parity, double value, double expected) {
    EXPECT_NEAR(value, expected, parity_tolerance(parity, expected)) << parity.at("id");
  }
  static void expect_scores(const json& parity, const ExpertAffinity& affinity,
                            const json& expected) {
    const std::vector<float> scores = scores_of(affinity);
    ASSERT_EQ(scores.size(), expected.size()) << parity.at("id");
    for (size_t i = 0; i < scores.size(); ++i) expect_near(parity, scores[i], expected[i]);
  }
};

TEST_P(ParityAffinity, A4A5Scores) {
  for (const char* id : {"A4.decay_all", "A4.boost", "A4.topk", "A4.clamp", "A4.least",
                         "A4.decay_256", "A4.simd_equals_scalar", "A4.max_score_2",
                         "A4.fix.subnormal_fixpoint", "A4.empty_update_keeps_counts", "A4.reset",
                         "A5.equivalence", "A5.decay500", "A5.fix.max_score_ignored"}) {
    SWITCHYARD_PARITY_CASE(parity, id);
    const json& inputs = parity.at("inputs");
    const json& expected = parity.at("expected");
    ExpertAffinity affinity(config_of(inputs), GetParam());
    if (parity.at("id") == "A4.reset") {
      run(affinity, "10 x [0,1,2,3]");
      affinity.reset();
    } else if (parity.at("id") == "A4.empty_update_keeps_counts") {
      run(affinity, "[0,1,2,3] then []");
    } else {
      run(affinity, inputs.at("updates"));
    }
    if (expected.contains("scores")) expect_scores(parity, affinity, expected.at("scores"));
    for (const int expert : {0, 1, 127, 128}) {
      const std::string key = "score" + std::to_string(expert);
      if (!expected.contains(key)) continue;
      expect_near(parity, scores_of(affinity)[static_cast<size_t>(expert)], expected.at(key));
    }
    if (expected.contains("score")) {
      expect_near(parity, scores_of(affinity)[0], expected.at("score"));
    }
    if (expected.contains("counts")) {
      EXPECT_EQ(json(activations_of(affinity)), expected.at("counts")) << id;
    }
    const json tops = expected.value("top_k", json::object());
    for (const auto& [key, experts] : tops.items()) {
      EXPECT_EQ(json(top_of(affinity, std::atoll(key.c_str()))), experts) << id << ", " << key;
    }
  }
}

TEST_P(ParityAffinity, A4ScoresAfterEach) {
  SWITCHYARD_PARITY_CASE(monotonic, "A4.monotonic");
  ExpertAffinity falling(config_of(monotonic.at("inputs")), GetParam());
  std::vector<double> ones;
  run(falling, monotonic.at("inputs").at("updates"),
      [&] { ones.push_back(scores_of(falling)[1]); });
  const json& after = monotonic.at("expected").at("score1_after_each_empty");
  ASSERT_EQ(ones.size(), after.size() + 1);
  for (size_t i = 0; i < after.size(); ++i) expect_near(monotonic, ones[i + 1], after[i]);

  SWITCHYARD_PARITY_CASE(sequence, "A4.sequence");
  ExpertAffinity mixed(config_of(sequence.at("inputs")), GetParam());
  std::vector<std::vector<float>> pairs;
  run(mixed, sequence.at("inputs").at("updates"), [&] {
    const std::vector<float> scores = scores_of(mixed);
    pairs.push_back({scores[0], scores[7]});
  });
  const json& expected = sequence.at("expected");
  ASSERT_EQ(pairs.size(), expected.at("score0_score7_after_each").size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    for (size_t j = 0; j < 2; ++j) {
      expect_near(sequence, pairs[i][j], expected.at("score0_score7_after_each")[i][j]);
    }
  }
  EXPECT_EQ(json(top_of(mixed, 2)), expected.at("top2"));
  EXPECT_EQ(json(activations_of(mixed)), expected.at("counts"));
}

TEST_P(ParityAffinity, A5FixedPointToTheBit) {
  SWITCHYARD_PARITY_CASE(parity, "A5.sequence");
  ExpertAffinity affinity(config_of(parity.at("inputs")), GetParam());
  std::vector<uint32_t> units;
  std::vector<float> scores;
  run(affinity, parity.at("inputs").at("updates"), [&] {
    units.push_back(affinity.units()[0]);
    scores.push_back(scores_of(affinity)[0]);
  });
  const json& expected = parity.at("expected");
  EXPECT_EQ(json(units), expected.at("raw"));
  for (size_t i = 0; i < scores.size(); ++i) expect_near(parity, scores[i], expected["scores"][i]);
}

TEST_P(ParityAffinity, A5BoostsSaturate) {
  SWITCHYARD_PARITY_CASE(parity, "A5.fix.sec1_wrap");
  const json& inputs = parity.at("inputs");
  ExpertAffinity affinity({1, 1.0f, 0.1f, 1.0f}, GetParam());
  const int64_t old = std::lround(inputs.at("old").get<double>() * 10);
  const int64_t boost = std::lround(inputs.at("boost").get<double>() * 10);
  affinity.update({&old, 1});
  affinity.update({&boost, 1});
  expect_near(parity, scores_of(affinity)[0], parity.at("expected").at("score"));
}

TEST_P(ParityAffinity, A4DecayOfAnyNumberOfExperts) {
  SWITCHYARD_PARITY_CASE(parity, "A4.decay_half_sizes");
  for (const int32_t num_experts : parity.at("inputs").at("num_experts")) {
    ExpertAffinity affinity({num_experts, parity.at("inputs").at("decay")}, GetParam());
    const std::vector<int64_t> all(static_cast<size_t>(num_experts), 1);
    affinity.update({all.data(), num_experts});
    affinity.update();
    for (const float score : scores_of(affinity)) {
      expect_near(parity, score, parity.at("expected").at("every_score"));
    }
  }
}

TEST_P(ParityAffinity, A4Choices) {
  SWITCHYARD_PARITY_CASE(least, "A4.least");
  ExpertAffinity affinity(config_of(least.at("inputs")), GetParam());
  run(affinity, least.at("inputs").at("updates"));
  const json& expected = least.at("expected");
  EXPECT_EQ(least_of(affinity, {0, 1, 2}), expected.at("least_of_0_1_2"));
  EXPECT_EQ(least_of(affinity, {}), expected.at("least_of_empty"));
  EXPECT_EQ(least_of(affinity, {0, 99}), expected.at("least_of_0_99"));
  EXPECT_EQ(least_of(affinity, {3, 99}), expected.at("least_of_3_99"));

  SWITCHYARD_PARITY_CASE(zero, "A4.percentile_all_zero");
  const ExpertAffinity unused(config_of(zero.at("inputs")), GetParam());
  EXPECT_EQ(json(unused.percentile(2)), zero.at("expected").at("percentile2"));

  SWITCHYARD_PARITY_CASE(empty, "A4.empty_tracker");
  const ExpertAffinity none(config_of(empty.at("inputs")), GetParam());
  EXPECT_EQ(json(none.percentile(0)), empty.at("expected").at("percentile"));
  EXPECT_EQ(json(top_of(none, 3)), empty.at("expected").at("top3"));
  EXPECT_EQ(least_of(none, {}), empty.at("expected").at("least"));
}

/// By frequency: the activations decide, which a caller reads and ranks.
TEST_P(ParityAffinity, A4Frequency) {
  SWITCHYARD_PARITY_CASE(parity, "A4.topk_frequency");
  ExpertAffinity affinity(config_of(parity.at("inputs")), GetParam());
  run(affinity, parity.at("inputs").at("updates"));
  const std::vector<int64_t> sums = activations_of(affinity);
  std::vector<int32_t> order{0, 1, 2, 3};
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return sums[static_cast<size_t>(a)] > sums[static_cast<size_t>(b)];
  });
  EXPECT_EQ(json(order), parity.at("expected").at("top4"));
}

/// The source clamps what is out of range; here it is refused, and what it clamps to is accepted.
TEST(ParityAffinityConfig, A4Limits) {
  SWITCHYARD_PARITY_CASE(parity, "A4.config_clamp");
  const json& inputs = parity.at("inputs");
  const json& expected = parity.at("expected");
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_THROW(validate({1, inputs["decay"][i]}), InvalidArgument);
    validate({1, expected["decay"][i]});
  }
  EXPECT_THROW(validate({1, 1.0f, inputs["activation_boost"]}), InvalidArgument);
  EXPECT_THROW(validate({1, 1.0f, 1.0f, inputs["max_score"]}), InvalidArgument);
  validate({1, 1.0f, expected["activation_boost"], expected["max_score"]});
  const ExpertAffinityConfig defaults;
  EXPECT_EQ(defaults.decay, expected["defaults"]["decay"].get<float>());
  EXPECT_EQ(defaults.activation_boost, expected["defaults"]["activation_boost"].get<float>());
  EXPECT_EQ(defaults.max_score, expected["defaults"]["max_score"].get<float>());
}

INSTANTIATE_TEST_SUITE_P(Backends, ParityAffinity,
                         ::testing::Values(Backend::kReference, Backend::kCpu),
                         [](const auto& backend) { return std::string(name_of(backend.param)); });

}  // namespace
}  // namespace switchyard::test

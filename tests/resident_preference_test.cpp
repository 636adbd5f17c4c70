// Preferring resident experts does what its header says. That every backend gives the same bits is
// for the conformance tests.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "switchyard/errors.h"
#include "switchyard/router.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Routed {
  std::vector<int32_t> expert_ids;
  std::vector<float> gate_weights;
  float sacrificed_mass = -1.0f;

  bool operator==(const Routed&) const = default;
};

/// One row with a preference; `residents` lists the resident experts.
struct Row {
  RouterConfig config;
  std::vector<float> logits;
  std::vector<int32_t> residents;
  ResidencyPreference preference{};
  std::vector<float> bias{};
  std::vector<uint8_t> expert_mask{};

  [[nodiscard]] Routed route(Backend backend = Backend::kReference) const {
    const auto num_experts = static_cast<int64_t>(logits.size());
    std::vector<uint8_t> resident(logits.size(), 0);
    for (const int32_t expert : residents) resident[static_cast<size_t>(expert)] = 1;
    Routed out;
    out.expert_ids.resize(static_cast<size_t>(config.top_k));
    out.gate_weights.resize(out.expert_ids.size());
    RoutingInputs inputs;
    inputs.logits = MatrixView<const float>(logits.data(), 1, num_experts);
    inputs.selection_bias = {bias.data(), static_cast<int64_t>(bias.size())};
    inputs.expert_mask = {expert_mask.data(), static_cast<int64_t>(expert_mask.size())};
    inputs.residency = preference;
    inputs.residency.resident_experts = {resident.data(), num_experts};
    RoutingResult result;
    result.expert_ids = {out.expert_ids.data(), 1, config.top_k};
    result.gate_weights = MatrixView<float>(out.gate_weights.data(), 1, config.top_k);
    result.sacrificed_mass = {&out.sacrificed_mass, 1};
    Router(config, backend).route(inputs, result);
    return out;
  }

  [[nodiscard]] std::vector<int32_t> ids() const { return route().expert_ids; }
};

ResidencyPreference unbounded(float bonus) { return additive_preference({}, bonus); }

RouterConfig config_of(int32_t num_experts, int32_t top_k) {
  return {.num_experts = num_experts, .top_k = top_k};
}

std::vector<double> probabilities(const std::vector<float>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double total = 0.0;
  std::vector<double> p;
  for (const float x : logits) total += p.emplace_back(std::exp(x - max));
  for (double& x : p) x /= total;
  return p;
}

TEST(ResidentPreference, TheWeakestChoiceGivesWayToTheBestResident) {
  const Row row{config_of(6, 3), {5, 4, 3, 2.9f, 2.8f, 0}, {4, 5}, unbounded(0.5f)};
  EXPECT_EQ(row.ids(), (std::vector<int32_t>{0, 1, 4}));
}

TEST(ResidentPreference, ResidentChoicesStayWhereTheyAre) {
  const Row row{config_of(6, 3), {5, 4, 3, 2.9f, 2.8f, 0}, {2, 3}, unbounded(1.5f)};
  EXPECT_EQ(row.ids(), (std::vector<int32_t>{0, 2, 3}));
}

TEST(ResidentPreference, AnEqualLiftedScoreGoesToTheLowerId) {
  EXPECT_EQ((Row{config_of(3, 1), {0.5f, 0.1f, 0.25f}, {2}, unbounded(0.25f)}.ids()),
            std::vector<int32_t>{0});
  EXPECT_EQ((Row{config_of(3, 1), {0.25f, 0.1f, 0.5f}, {0}, unbounded(0.25f)}.ids()),
            std::vector<int32_t>{0});
}

TEST(ResidentPreference, NoBonusOrNoResidentChangesNoBit) {
  RandomStream random(301);
  for (int i = 0; i < 200; ++i) {
    Row row{config_of(40, 6), {}, {}, unbounded(0.0f)};
    for (int e = 0; e < 40; ++e) row.logits.push_back(static_cast<float>(random.normal()));
    const Routed plain = row.route();
    EXPECT_EQ(plain.sacrificed_mass, 0.0f);
    row.preference.bonus = 3.0f;
    EXPECT_EQ(row.route(), plain);
    row.preference.bonus = 0.0f;
    row.residents = {1, 5, 7, 30};
    EXPECT_EQ(row.route(), plain);
  }
}

TEST(ResidentPreference, AnUnboundedBonusChoosesByLiftedLogits) {
  RandomStream random(307);
  for (int i = 0; i < 300; ++i) {
    const auto top_k = static_cast<int32_t>(1 + random.below(8));
    const auto bonus = static_cast<float>(random.normal() * random.normal());
    Row row{config_of(24, top_k), {}, {}, unbounded(std::fabs(bonus))};
    std::vector<std::pair<float, int32_t>> lifted;
    for (int32_t e = 0; e < 24; ++e) {
      row.logits.push_back(static_cast<float>(random.normal()));
      const bool is_resident = random.chance(40);
      if (is_resident) row.residents.push_back(e);
      lifted.emplace_back(-(row.logits.back() + (is_resident ? std::fabs(bonus) : 0.0f)), e);
    }
    std::sort(lifted.begin(), lifted.end());
    std::vector<int32_t> expected;
    for (int32_t j = 0; j < top_k; ++j) {
      expected.push_back(lifted[static_cast<size_t>(j)].second);
    }
    std::vector<int32_t> actual = row.ids();
    std::sort(expected.begin(), expected.end());
    std::sort(actual.begin(), actual.end());
    EXPECT_EQ(actual, expected);
  }
}

/// Every bound, judged in float64 by what went and what came.
TEST(ResidentPreference, BoundsHold) {
  RandomStream random(311);
  constexpr double kRounding = 1e-6;
  int64_t num_swaps = 0;
  for (int i = 0; i < 2000; ++i) {
    const auto top_k = static_cast<int32_t>(1 + random.below(8));
    Row row{config_of(32, top_k), {}, {}, unbounded(kInfinity)};
    row.preference.max_swap_loss = random.chance(50) ? 0.02f : 1.0f;
    row.preference.max_sacrificed_share = random.chance(50) ? 0.05f : 0.3f;
    row.preference.num_protected = static_cast<int32_t>(random.below(top_k + 1));
    for (int32_t e = 0; e < 32; ++e) {
      row.logits.push_back(static_cast<float>(random.normal()));
      if (random.chance(40)) row.residents.push_back(e);
    }
    const Routed chosen = row.route();
    Row plain_row = row;
    plain_row.residents = {};
    const std::vector<int32_t> plain = plain_row.ids();
    const std::vector<double> p = probabilities(row.logits);
    const auto mass_of = [&](const std::vector<int32_t>& ids) {
      double mass = 0.0;
      for (const int32_t id : ids) mass += p[static_cast<size_t>(id)];
      return mass;
    };
    const double lost = mass_of(plain) - mass_of(chosen.expert_ids);
    EXPECT_NEAR(chosen.sacrificed_mass, lost, kRounding);
    EXPECT_LE(lost, row.preference.max_sacrificed_share * mass_of(plain) + kRounding);
    const auto contains = [](const std::vector<int32_t>& ids, int32_t id) {
      return std::find(ids.begin(), ids.end(), id) != ids.end();
    };
    std::vector<int32_t> gone;
    std::vector<int32_t> come;
    for (size_t j = 0; j < plain.size(); ++j) {
      if (!contains(chosen.expert_ids, plain[j])) gone.push_back(plain[j]);
      if (!contains(plain, chosen.expert_ids[j])) come.push_back(chosen.expert_ids[j]);
      if (j < static_cast<size_t>(row.preference.num_protected)) {
        EXPECT_EQ(chosen.expert_ids[j], plain[j]);
      }
    }
    num_swaps += static_cast<int64_t>(gone.size());
    std::reverse(gone.begin(), gone.end());
    for (size_t j = 0; j < gone.size(); ++j) {
      EXPECT_FALSE(contains(row.residents, gone[j]));
      EXPECT_TRUE(contains(row.residents, come[j]));
      const double loss = p[static_cast<size_t>(gone[j])] - p[static_cast<size_t>(come[j])];
      EXPECT_LE(loss, row.preference.max_swap_loss + kRounding);
    }
  }
  EXPECT_GT(num_swaps, 500);
}

TEST(ResidentPreference, WithoutAShareToGiveOnlyEqualExpertsMayCome) {
  Row row{config_of(4, 2), {3, 2, 2, 1.9f}, {2, 3}, unbounded(kInfinity)};
  row.preference.max_sacrificed_share = 0.0f;
  const Routed routed = row.route();
  EXPECT_EQ(routed.expert_ids, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(routed.sacrificed_mass, 0.0f);
}

TEST(ResidentPreference, ASpreadBonusFollowsTheScaleOfTheRow) {
  for (const float scale : {0.01f, 1.0f, 100.0f}) {
    Row row{config_of(4, 1), {scale * 10, 0, scale * 8, 0}, {2}, unbounded(0.25f)};
    row.preference.bonus_scale = BonusScale::kSpread;
    EXPECT_EQ(row.ids(), std::vector<int32_t>{2}) << scale;
    row.preference.bonus = 0.15f;
    EXPECT_EQ(row.ids(), std::vector<int32_t>{0}) << scale;
  }
}

TEST(ResidentPreference, WeightsComeFromTheLogitsOfTheResult) {
  const Row preferring{config_of(4, 2), {3, 2, 1, 0}, {3}, unbounded(kInfinity)};
  const Row choosing{config_of(4, 2), {3, -kInfinity, -kInfinity, 0}, {}};
  EXPECT_EQ(preferring.route().expert_ids, (std::vector<int32_t>{0, 3}));
  EXPECT_EQ(preferring.route().gate_weights, choosing.route().gate_weights);
}

TEST(ResidentPreference, ExpertsThatCannotBeRankedNeverCome) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Row row{config_of(6, 2),
          {1, 0.5f, nan, kInfinity, -kInfinity, 0.1f},
          {2, 3, 4, 5},
          unbounded(kInfinity)};
  EXPECT_EQ(row.ids(), (std::vector<int32_t>{0, 5}));
  row.expert_mask = {1, 1, 1, 1, 1, 0};
  EXPECT_EQ(row.ids(), (std::vector<int32_t>{0, 1}));
}

TEST(ResidentPreference, AHugeLogitIsStillRankedWithABonus) {
  const float max = std::numeric_limits<float>::max();
  const Row row{config_of(3, 1), {3e38f, max, 1.0f}, {1}, unbounded(1.0f)};
  EXPECT_EQ(row.ids(), std::vector<int32_t>{1});
}

TEST(ResidentPreference, ResidentsOfGroupsThatGaveWayDoNotCome) {
  Row row{config_of(4, 1), {5, 1, 4, 4}, {2, 3}, unbounded(kInfinity)};
  row.config.num_groups = 2;
  EXPECT_EQ(row.ids(), std::vector<int32_t>{0});
  row.residents = {1, 2};
  EXPECT_EQ(row.ids(), std::vector<int32_t>{1});
}

TEST(ResidentPreference, ScoresAreLiftedAfterTheirBias) {
  Row row{config_of(3, 1), {0, 0, 0}, {2}, unbounded(0.2f)};
  row.config.score_function = ScoreFunction::kSigmoid;
  row.bias = {0.3f, 0.0f, 0.15f};
  EXPECT_EQ(row.ids(), std::vector<int32_t>{2});
  row.preference.bonus = 0.1f;
  EXPECT_EQ(row.ids(), std::vector<int32_t>{0});
}

TEST(ResidentPreference, AGainIsNoLoss) {
  // The bias chose expert 0, whose score is lower than that of expert 1.
  Row row{config_of(2, 1), {-1, 1}, {1}, unbounded(1.0f)};
  row.config.score_function = ScoreFunction::kSigmoid;
  row.bias = {0.9f, 0.0f};
  row.preference.max_sacrificed_share = 0.0f;
  for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
    const Routed routed = row.route(backend);
    EXPECT_EQ(routed.expert_ids, std::vector<int32_t>{1});
    EXPECT_EQ(routed.sacrificed_mass, 0.0f);
  }
}

TEST(ResidentPreference, NumbersThatBoundNothingAreRefused) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Row good{config_of(4, 2), {3, 2, 1, 0}, {3}, unbounded(1.0f)};
  const auto message_of = [&](auto spoil) {
    Row row = good;
    spoil(row.preference);
    for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
      try {
        (void)row.route(backend);
      } catch (const InvalidArgument& error) {
        if (backend == Backend::kCpu) return std::string(error.what());
      }
    }
    return std::string("accepted");
  };
  EXPECT_EQ(message_of([&](auto& p) { p.bonus = nan; }),
            "residency.bonus is nan, must be 0 or more");
  EXPECT_EQ(message_of([&](auto& p) { p.bonus = -0.5f; }),
            "residency.bonus is -0.5, must be 0 or more");
  EXPECT_EQ(message_of([&](auto& p) { p.max_swap_loss = nan; }),
            "residency.max_swap_loss is nan, must be 0 or more");
  EXPECT_EQ(message_of([&](auto& p) { p.max_sacrificed_share = -1.0f; }),
            "residency.max_sacrificed_share is -1, must be 0 or more");
  EXPECT_EQ(message_of([&](auto& p) { p.num_protected = 3; }),
            "residency.num_protected is 3, must be in [0, 2]");
  EXPECT_EQ(message_of([&](auto& p) { p.bonus_scale = static_cast<BonusScale>(7); }),
            "residency.bonus_scale is 7, must be in [0, 1]");
}

}  // namespace
}  // namespace switchyard::test

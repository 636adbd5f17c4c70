// A token by itself has ways of its own. On every instruction set they give the reference's bits,
// with residents and without.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "switchyard/router.h"
#include "tests/backend_variants.h"
#include "tests/random_stream.h"

namespace switchyard::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// A token, how it is routed, and which experts are resident.
struct Token {
  RouterConfig config;
  ResidencyPreference preference;
  std::vector<uint8_t> residents;
  std::vector<float> logits;
  bool wants_sacrifice = false;
  DataType dtype = DataType::kFloat32;
};

struct Routed {
  std::vector<int32_t> expert_ids;
  std::vector<uint32_t> weight_bits;
  uint32_t sacrifice_bits = 0;
  int64_t num_degenerate_rows = -1;

  bool operator==(const Routed&) const = default;
};

Routed route(const Router& router, const Token& token) {
  const auto num_experts = static_cast<int64_t>(token.logits.size());
  const int64_t top_k = token.config.top_k;
  Routed out;
  out.expert_ids.resize(static_cast<size_t>(top_k));
  out.weight_bits.resize(out.expert_ids.size());
  std::vector<float> weights(out.expert_ids.size());
  float sacrifice = 0.0f;
  RoutingInputs inputs;
  std::vector<BFloat16> bfloats;
  std::vector<Float16> halves;
  for (const float x : token.logits) {
    bfloats.push_back(to_bfloat16(x));
    halves.push_back(to_float16(x));
  }
  inputs.logits = MatrixView<const float>(token.logits.data(), 1, num_experts);
  if (token.dtype == DataType::kBFloat16) {
    inputs.logits = MatrixView<const BFloat16>(bfloats.data(), 1, num_experts);
  } else if (token.dtype == DataType::kFloat16) {
    inputs.logits = MatrixView<const Float16>(halves.data(), 1, num_experts);
  }
  inputs.residency = token.preference;
  inputs.residency.resident_experts = {token.residents.data(),
                                       static_cast<int64_t>(token.residents.size())};
  RoutingResult result;
  result.expert_ids = {out.expert_ids.data(), 1, top_k};
  result.gate_weights = MatrixView<float>(weights.data(), 1, top_k);
  result.num_degenerate_rows = &out.num_degenerate_rows;
  if (token.wants_sacrifice) result.sacrificed_mass = {&sacrifice, 1};
  router.route(inputs, result);
  for (size_t i = 0; i < weights.size(); ++i) {
    out.weight_bits[i] = std::bit_cast<uint32_t>(weights[i]);
  }
  out.sacrifice_bits = std::bit_cast<uint32_t>(sacrifice);
  return out;
}

/// Spread, close together, on a grid with many ties, or far apart; some with what is no number.
std::vector<float> random_logits(RandomStream& random, int32_t num_experts) {
  constexpr double kScales[] = {1.5, 1e-6, 0.0, 40.0};
  const auto kind = static_cast<size_t>(random.below(4));
  const bool has_specials = random.chance(15);
  constexpr float kSpecials[] = {
      std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity, 3e38f, -3e38f, -0.0f};
  std::vector<float> logits;
  for (int32_t expert = 0; expert < num_experts; ++expert) {
    const double value =
        kind == 2 ? 0.25 * std::round(random.normal()) : 1.0 + kScales[kind] * random.normal();
    logits.push_back(static_cast<float>(value));
    if (has_specials && random.chance(20)) logits.back() = random.pick(kSpecials);
  }
  return logits;
}

RouterConfig random_config(RandomStream& random) {
  constexpr int32_t kExperts[] = {1,  2,  5,   8,   9,   15,  16,  17,  24,  32,  48,  60, 64,
                                  65, 96, 100, 128, 160, 192, 200, 256, 257, 384, 512, 513};
  RouterConfig config;
  config.num_experts = random.pick(kExperts);
  config.top_k = static_cast<int32_t>(
      1 + random.below(std::min<int64_t>(config.num_experts, random.chance(80) ? 8 : 17)));
  config.renormalize = random.chance(70);
  if (random.chance(30)) config.routed_scaling_factor = 2.5f;
  return config;
}

Token random_token(RandomStream& random, const RouterConfig& config) {
  constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kFloat32, DataType::kFloat16,
                                 DataType::kBFloat16};
  Token token{config, {}, {}, random_logits(random, config.num_experts)};
  token.dtype = random.pick(kTypes);
  if (random.chance(25)) return token;
  const int percent = static_cast<int>(random.below(101));
  for (int32_t expert = 0; expert < config.num_experts; ++expert) {
    token.residents.push_back(random.chance(percent) ? static_cast<uint8_t>(1 + random.below(255))
                                                     : uint8_t{0});
  }
  constexpr float kBonuses[] = {0.0f, 1e-7f, 0.05f, 0.25f, 2.0f, 3e38f, kInfinity};
  constexpr float kBounds[] = {0.0f, 0.01f, 0.3f, 1.0f, kInfinity};
  ResidencyPreference& preference = token.preference;
  preference.bonus = random.pick(kBonuses);
  if (random.chance(40)) preference.bonus_scale = BonusScale::kSpread;
  preference.max_swap_loss = random.pick(kBounds);
  preference.max_sacrificed_share = random.pick(kBounds);
  if (random.chance(30)) {
    preference.num_protected = static_cast<int32_t>(random.below(config.top_k + 1));
  }
  token.wants_sacrifice = random.chance(50);
  return token;
}

class TokenRouting : public ::testing::TestWithParam<int64_t> {
 protected:
  const ScopedCpuTarget target_{GetParam()};
};

TEST_P(TokenRouting, IsTheReferencesBitForBit) {
  RandomStream random(401);
  for (int i = 0; i < 600; ++i) {
    const RouterConfig config = random_config(random);
    const Router reference(config, Backend::kReference);
    const Router tested(config, Backend::kCpu, {.num_threads = 1});
    for (int j = 0; j < 40; ++j) {
      const Token token = random_token(random, config);
      ASSERT_EQ(route(tested, token), route(reference, token))
          << "E " << config.num_experts << " k " << config.top_k << " renormalize "
          << config.renormalize << " residents " << token.residents.size() << " bonus "
          << token.preference.bonus << " spread "
          << (token.preference.bonus_scale == BonusScale::kSpread) << " tau "
          << token.preference.max_swap_loss << " epsilon " << token.preference.max_sacrificed_share
          << " protected " << token.preference.num_protected << " case " << i << ", " << j;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, TokenRouting, ::testing::ValuesIn(cpu_targets()),
                         [](const auto& target) { return std::to_string(target.index); });

}  // namespace
}  // namespace switchyard::test

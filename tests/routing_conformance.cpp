#include "tests/routing_conformance.h"

#include <algorithm>
#include <cmath>

#include "tests/backend_variants.h"

namespace switchyard::test {
namespace {

void randomize_groups(RandomStream& random, RouterConfig& config) {
  std::vector<int32_t> divisors;
  for (int32_t groups = 1; groups <= std::min(config.num_experts, 64); ++groups) {
    if (config.num_experts % groups == 0) divisors.push_back(groups);
  }
  config.num_groups = random.pick(divisors);
  const int32_t group_size = config.num_experts / config.num_groups;
  const int32_t fewest = (config.top_k + group_size - 1) / group_size;
  config.top_groups = fewest + static_cast<int32_t>(random.below(config.num_groups - fewest + 1));
  config.group_score = random.pick(kAllGroupScores);
  if (config.top_k < config.top_groups) config.group_score = GroupScore::kMax;
}

void randomize_residency(RandomStream& random, RoutingCase& c) {
  constexpr int kPercents[] = {5, 40, 40, 75, 100};
  constexpr float kBonuses[] = {0.0f, 0.05f, 0.3f, 2.0f, INFINITY, 3e38f};
  constexpr float kSwapLosses[] = {0.0f, 0.003f, 0.05f, 1.0f, 1.0f, INFINITY};
  constexpr float kShares[] = {0.0f, 0.02f, 0.3f, 2.0f, INFINITY};
  c.percent_resident = random.pick(kPercents);
  c.residency.bonus = random.pick(kBonuses);
  c.residency.bonus_scale = random.chance(50) ? BonusScale::kAbsolute : BonusScale::kSpread;
  c.residency.max_swap_loss = random.pick(kSwapLosses);
  c.residency.max_sacrificed_share = random.pick(kShares);
  if (random.chance(40)) {
    c.residency.num_protected = static_cast<int32_t>(random.below(c.config.top_k + 1));
  }
}

}  // namespace

int64_t pick_num_tokens(RandomStream& random, int32_t num_experts, int64_t area) {
  int64_t num_tokens = random.pick(kTokenCounts);
  while (num_tokens * num_experts > area && num_tokens > 1) {
    num_tokens =
        *(std::lower_bound(std::begin(kTokenCounts), std::end(kTokenCounts), num_tokens) - 1);
  }
  return num_tokens;
}

void randomize(RandomStream& random, RoutingCase& c) {
  constexpr float kScales[] = {1.0f, 1.0f, 2.5f, 16.0f, 0x1p-20f};
  c.config.renormalize = random.chance(50);
  c.config.routed_scaling_factor = random.pick(kScales);
  if (random.chance(35)) randomize_groups(random, c.config);
  if (random.chance(25)) {
    c.config.num_shared_experts = static_cast<int32_t>(1 + random.below(3));
    c.config.shared_expert_weight = random.chance(50) ? 1.0f : -0.3f;
  }
  c.distribution = random.chance(35) ? Distribution::kNormal : random.pick(kAllDistributions);
  c.dtype = random.pick(kAllDataTypes);
  c.weight_dtype = random.chance(30) ? DataType::kBFloat16 : DataType::kFloat32;
  c.with_bias = random.chance(35);
  c.with_token_mask = random.chance(25);
  c.with_expert_mask = random.chance(20);
  c.logits_padding = random.chance(40) ? 1 + random.below(9) : 0;
  c.output_padding = random.chance(40) ? 1 + random.below(5) : 0;
  c.with_losses = random.chance(50);
  c.with_counts = random.chance(80);
  if (random.chance(25)) randomize_residency(random, c);
  c.seed = random.bits();
}

std::string disagreement(const RoutingCase& routing_case) {
  const RoutingBatch batch(routing_case);
  const Router reference(routing_case.config, Backend::kReference);
  const RoutedBatch expected = route(reference, routing_case, batch.inputs());
  for (const BackendVariant& variant : backend_variants()) {
    const ScopedCpuTarget target(variant.target);
    const Router router(routing_case.config, variant.backend, variant.threads);
    const std::string text = difference(expected, route(router, routing_case, batch.inputs()));
    if (!text.empty()) return text + "\n  on " + variant.name + "\n  of " + describe(routing_case);
  }
  return "";
}

}  // namespace switchyard::test

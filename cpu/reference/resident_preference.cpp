#include "cpu/reference/resident_preference.h"

#include <algorithm>
#include <cmath>

#include "switchyard/numerics.h"

namespace switchyard::cpu::reference {
namespace {

float limit(float factor, float amount) { return std::isinf(factor) ? factor : factor * amount; }

float bonus_of(const ResidencyPreference& preference, const RowScores& row,
               const std::vector<int32_t>& candidates) {
  if (preference.bonus_scale == BonusScale::kAbsolute || std::isinf(preference.bonus)) {
    return preference.bonus;
  }
  float greatest = -INFINITY;
  float least = INFINITY;
  for (const int32_t expert : candidates) {
    greatest = std::max(greatest, row.selection[static_cast<size_t>(expert)]);
    least = std::min(least, row.selection[static_cast<size_t>(expert)]);
  }
  return preference.bonus * (greatest - least);
}

}  // namespace

float prefer_residents(const RouterConfig& config, const ResidencyPreference& preference,
                       const RowScores& row, const std::vector<int32_t>& candidates,
                       std::vector<int32_t>& chosen) {
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  const auto mass = [&](int32_t expert) {
    const auto e = static_cast<size_t>(expert);
    return softmax ? numerics::exp_or_zero(row.logit[e] - row.max_logit) : row.score[e];
  };
  const auto is_chosen = [&](int32_t expert) {
    return std::find(chosen.begin(), chosen.end(), expert) != chosen.end();
  };
  std::vector<int32_t> residents;
  for (const int32_t expert : candidates) {
    if (preference.resident_experts[expert] != 0 && !is_chosen(expert)) residents.push_back(expert);
  }
  residents = best_of(residents, row.selection, config.top_k);
  if (residents.empty()) return 0.0f;  // a row without enough experts has none either

  const float bonus = bonus_of(preference, row, candidates);
  std::vector<float> masses;
  for (const int32_t expert : chosen) masses.push_back(mass(expert));
  const float whole = softmax ? row.denominator : 1.0f;
  const float swap_limit = limit(preference.max_swap_loss, whole);
  const float share_limit = limit(preference.max_sacrificed_share, folded_sum(masses));

  float lost = 0.0f;
  std::vector<int32_t> entrants;
  auto slot = static_cast<int32_t>(chosen.size());
  for (const int32_t resident : residents) {
    --slot;
    while (slot >= preference.num_protected &&
           preference.resident_experts[chosen[static_cast<size_t>(slot)]] != 0) {
      --slot;
    }
    if (slot < preference.num_protected) break;
    const int32_t leaving = chosen[static_cast<size_t>(slot)];
    if (!outranks(row.selection[static_cast<size_t>(resident)] + bonus, resident,
                  row.selection[static_cast<size_t>(leaving)], leaving)) {
      break;
    }
    const float loss = std::max(mass(leaving) - mass(resident), 0.0f);
    if (!(loss <= swap_limit) || !(lost + loss <= share_limit)) break;
    lost += loss;
    chosen.erase(chosen.begin() + slot);
    entrants.push_back(resident);
  }
  chosen.insert(chosen.end(), entrants.begin(), entrants.end());
  return lost / whole;
}

}  // namespace switchyard::cpu::reference

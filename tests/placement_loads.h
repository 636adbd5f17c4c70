// Loads of experts to plan with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "switchyard/placement_planner.h"
#include "switchyard/tensor_view.h"
#include "tests/random_stream.h"

namespace switchyard::test {

/// [num_layers, num_experts]
struct ExpertLoads {
  int64_t num_layers = 0;
  int64_t num_experts = 0;
  std::vector<double> values;

  [[nodiscard]] MatrixView<const double> view() const {
    return {values.data(), num_layers, num_experts};
  }
  [[nodiscard]] std::span<const double> layer(int64_t index) const {
    return {view().row(index), static_cast<std::size_t>(num_experts)};
  }
};

/// exp(sigma * normal): sigma of 0.5 to 1 is as skewed as published models are.
inline ExpertLoads log_normal_loads(int64_t num_layers, int64_t num_experts, double sigma,
                                    uint64_t seed) {
  RandomStream random(seed);
  ExpertLoads loads{num_layers, num_experts, {}};
  for (int64_t i = 0; i < num_layers * num_experts; ++i) {
    loads.values.push_back(1000.0 * std::exp(sigma * random.normal()));
  }
  return loads;
}

/// A layer to plan, of a shape by chance: 8 to 256 experts, 2 to 64 ranks, sigma 0.2 to 1.7.
struct RandomLayer {
  PlacementPlannerConfig config;
  ExpertLoads loads;
};

/// @return nothing where the shape drawn has more slots a rank than experts.
inline std::optional<RandomLayer> random_layer(RandomStream& random) {
  const auto num_experts = static_cast<int32_t>(int64_t{8} << random.below(6));
  const auto num_ranks = static_cast<int32_t>(int64_t{2} << random.below(6));
  const int32_t fewest = (num_experts + num_ranks - 1) / num_ranks;
  const auto per_rank = static_cast<int32_t>(fewest + random.below(fewest + 1));
  if (per_rank > num_experts) return std::nullopt;
  const double sigma = 0.2 + 1.5 * random.uniform();
  return RandomLayer{
      {.num_experts = num_experts, .num_ranks = num_ranks, .num_slots = num_ranks * per_rank},
      log_normal_loads(1, num_experts, sigma, random.bits())};
}

/// Counts of about `assignments` a layer, drawn from these loads.
inline ExpertLoads sample_of(const ExpertLoads& loads, double assignments, uint64_t seed) {
  RandomStream random(seed);
  ExpertLoads sample = loads;
  for (int64_t layer = 0; layer < loads.num_layers; ++layer) {
    double total = 0.0;
    for (const double load : loads.layer(layer)) total += load;
    for (int64_t expert = 0; expert < loads.num_experts; ++expert) {
      const auto at = static_cast<std::size_t>(layer * loads.num_experts + expert);
      const double mean = loads.values[at] / total * assignments;
      sample.values[at] = std::max(0.0, std::round(mean + std::sqrt(mean) * random.normal()));
    }
  }
  return sample;
}

}  // namespace switchyard::test

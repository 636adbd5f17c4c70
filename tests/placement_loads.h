// Loads of experts to plan with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

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

// One token's scores and weights, computed plainly.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/router.h"

namespace switchyard::cpu::reference {

/// Everything about one row that does not depend on which experts are chosen. Vectors named by
/// expert have num_experts elements; entries of experts that are not `finite` mean nothing.
struct RowScores {
  std::vector<int32_t> finite;  ///< enabled experts with a finite logit, ascending
  std::vector<int32_t> ranked;  ///< those whose selection score is finite too
  std::vector<float> logit;
  std::vector<float> score;        ///< without bias; softmax: the probability
  std::vector<float> selection;    ///< what the choice is made by
  std::vector<float> probability;  ///< of the losses
  float max_logit = 0.0f;
  float denominator = 0.0f;  ///< sum of e^(x - max_logit) over `finite`
  float log_sum_exp = 0.0f;
};

/// The contract's sum: terms padded with zeros to a power of two, upper half folded onto the lower.
float folded_sum(std::vector<float> terms);

/// Orders (score, id) pairs best first; `first` outranks `second`.
bool outranks(float first_score, int32_t first_id, float second_score, int32_t second_id);

/// The `count` best of `ids` under `scores`, best first; fewer where there are fewer.
std::vector<int32_t> best_of(std::vector<int32_t> ids, const std::vector<float>& scores,
                             int32_t count);

RowScores score_row(const RouterConfig& config, const RoutingInputs& inputs, int64_t token);

/// Weights of `chosen`, experts of `row.finite`.
std::vector<float> chosen_weights(const RouterConfig& config, const RowScores& row,
                                  const std::vector<int32_t>& chosen);

}  // namespace switchyard::cpu::reference

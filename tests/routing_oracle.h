// Routing in float64, written apart from the library: what the mathematics says, and how far
// float32 may stray from it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/router.h"

namespace switchyard::test {

/// One token's row and what applies to it.
struct OracleInput {
  std::vector<float> logits;
  std::vector<float> selection_bias;  ///< empty: none
  std::vector<uint8_t> expert_mask;   ///< empty: all enabled
};

/// The routed slots of one token, without shared experts.
struct OracleRow {
  std::vector<int32_t> expert_ids;  ///< best first, filled up to top_k
  int64_t num_chosen = 0;           ///< the first ones, which carry a weight
  bool degenerate = false;          ///< no finite, enabled logit
  double log_sum_exp = 0.0;
  std::vector<double> probability;  ///< of the losses, by expert
  double probability_slack = 0.0;   ///< absolute error that float32 may make in them
};

OracleRow route_in_float64(const RouterConfig& config, const OracleInput& input);

/// What contradicts the oracle in one token's ids and weights (routed slots only); empty: nothing.
/// Ids must be the oracle's own. Only where float32 rounding can decide between two scores
/// (relative distance around 1e-6; never for choices made on the logits or on the identity score)
/// may they differ, and then by no more than that. Weights are judged for the ids that were given.
std::string contradiction(const RouterConfig& config, const OracleInput& input,
                          const std::vector<int32_t>& expert_ids,
                          const std::vector<float>& gate_weights);

}  // namespace switchyard::test

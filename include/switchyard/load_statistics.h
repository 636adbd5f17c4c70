// How a batch's load is spread over its experts.
#pragma once

#include <cstdint>

#include "switchyard/permutation.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// Spread of a list of loads. All zero for an empty list or one without load, but for balancedness
/// and max_over_mean, which are 1 then.
struct LoadSummary {
  int64_t total = 0;
  int64_t max = 0;
  int64_t min = 0;
  double mean = 0.0;
  double max_over_mean = 1.0;             ///< imbalance: 1 is even
  double balancedness = 1.0;              ///< mean / max, in (0, 1]
  double coefficient_of_variation = 0.0;  ///< population standard deviation / mean
  double gini = 0.0;                      ///< 0 even, towards 1 all on one
  double entropy = 0.0;                   ///< of the shares, in nats
  int64_t num_idle = 0;                   ///< experts without load
  int32_t most_loaded = -1;               ///< lowest id among equals
  int32_t least_loaded = -1;
};

/// @throws InvalidArgument  for a count below 0, naming the expert.
LoadSummary summarize_load(VectorView<const int64_t> tokens_per_expert);

/// Each expert's load over the mean: 1 is even. All zero without load.
///
/// @param relative  [tokens_per_expert.size]
/// @throws InvalidArgument  for a count below 0, or when the sizes disagree.
void relative_load(VectorView<const int64_t> tokens_per_expert, VectorView<double> relative);

/// Assignments beyond `capacity` rows an expert: what such a capacity would drop.
///
/// @param capacity  0 or more; see capacity_rows().
/// @throws InvalidArgument  for a count or a capacity below 0.
int64_t overflow_assignments(VectorView<const int64_t> tokens_per_expert, int64_t capacity);

/// Mean over the tokens of the entropy, in nats, of a token's normalised gate weights. Tokens whose
/// weights sum to 0 (padding among them) or are not all finite and 0 or more are left out; 0 when
/// none is left.
double mean_weight_entropy(MatrixView<const float> gate_weights);

/// Shares of a batch that capacity took away.
struct DropRates {
  double assignments_kept = 1.0;  ///< kept / (kept + dropped); 1 without assignments
  double tokens_served = 1.0;     ///< tokens with at least one kept assignment; 1 without tokens
};

/// @throws InvalidArgument  for a count below 0, or more dropped tokens than tokens.
DropRates drop_rates(const PermutationTotals& totals, int64_t num_tokens);

}  // namespace switchyard

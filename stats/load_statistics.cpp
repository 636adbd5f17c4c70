// All sums are taken in double: exact for counts below 2^53, and far from the hot path.
#include "switchyard/load_statistics.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <vector>

#include "switchyard/errors.h"

namespace switchyard {
namespace {

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw InvalidArgument(message.str());
}

int64_t checked_total(VectorView<const int64_t> loads) {
  int64_t total = 0;
  for (int64_t expert = 0; expert < loads.size; ++expert) {
    if (loads[expert] < 0) {
      refuse("tokens_per_expert[", expert, "] is ", loads[expert], ", must be 0 or more");
    }
    if (__builtin_add_overflow(total, loads[expert], &total)) {
      refuse("the sum of tokens_per_expert overflows");
    }
  }
  return total;
}

/// Half the mean absolute difference of two loads, over the mean; from the sorted loads.
double gini_of(VectorView<const int64_t> loads, double total) {
  std::vector<int64_t> sorted(loads.data, loads.data + loads.size);
  std::sort(sorted.begin(), sorted.end());
  const auto size = static_cast<double>(sorted.size());
  double weighted = 0.0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    weighted += (2.0 * static_cast<double>(i + 1) - size - 1.0) * static_cast<double>(sorted[i]);
  }
  return weighted / (size * total);
}

double entropy_of(const double* shares, int64_t size) {
  double entropy = 0.0;
  for (int64_t i = 0; i < size; ++i) {
    if (shares[i] > 0.0) entropy -= shares[i] * std::log(shares[i]);
  }
  return std::max(entropy, 0.0);  // never -0
}

}  // namespace

LoadSummary summarize_load(VectorView<const int64_t> tokens_per_expert) {
  LoadSummary summary;
  summary.total = checked_total(tokens_per_expert);
  const int64_t size = tokens_per_expert.size;
  if (size == 0) return summary;
  const int64_t* loads = tokens_per_expert.data;
  const int64_t* most = std::max_element(loads, loads + size);
  const int64_t* least = std::min_element(loads, loads + size);
  summary.max = *most;
  summary.min = *least;
  summary.most_loaded = static_cast<int32_t>(most - loads);
  summary.least_loaded = static_cast<int32_t>(least - loads);
  summary.num_idle = std::count(loads, loads + size, int64_t{0});
  if (summary.total == 0) return summary;

  const auto total = static_cast<double>(summary.total);
  summary.mean = total / static_cast<double>(size);
  summary.max_over_mean = static_cast<double>(summary.max) / summary.mean;
  summary.balancedness = summary.mean / static_cast<double>(summary.max);
  double squares = 0.0;
  std::vector<double> shares(static_cast<std::size_t>(size));
  for (int64_t expert = 0; expert < size; ++expert) {
    const auto load = static_cast<double>(loads[expert]);
    squares += (load - summary.mean) * (load - summary.mean);
    shares[static_cast<std::size_t>(expert)] = load / total;
  }
  summary.coefficient_of_variation = std::sqrt(squares / static_cast<double>(size)) / summary.mean;
  summary.gini = gini_of(tokens_per_expert, total);
  summary.entropy = entropy_of(shares.data(), size);
  return summary;
}

void relative_load(VectorView<const int64_t> tokens_per_expert, VectorView<double> relative) {
  if (relative.size != tokens_per_expert.size) {
    refuse("relative has ", relative.size, " elements, must have ", tokens_per_expert.size);
  }
  const int64_t total = checked_total(tokens_per_expert);
  const double mean = static_cast<double>(total) / static_cast<double>(relative.size);
  for (int64_t expert = 0; expert < relative.size; ++expert) {
    relative[expert] = total == 0 ? 0.0 : static_cast<double>(tokens_per_expert[expert]) / mean;
  }
}

int64_t overflow_assignments(VectorView<const int64_t> tokens_per_expert, int64_t capacity) {
  if (capacity < 0) refuse("capacity is ", capacity, ", must be 0 or more");
  checked_total(tokens_per_expert);
  int64_t overflow = 0;
  for (int64_t expert = 0; expert < tokens_per_expert.size; ++expert) {
    overflow += std::max<int64_t>(0, tokens_per_expert[expert] - capacity);
  }
  return overflow;
}

double mean_weight_entropy(MatrixView<const float> gate_weights) {
  std::vector<double> shares(static_cast<std::size_t>(std::max<int64_t>(gate_weights.cols, 0)));
  double sum_of_entropies = 0.0;
  int64_t num_counted = 0;
  for (int64_t token = 0; token < gate_weights.rows; ++token) {
    const float* weights = gate_weights.row(token);
    double sum = 0.0;
    bool usable = true;
    for (int64_t slot = 0; slot < gate_weights.cols; ++slot) {
      usable = usable && std::isfinite(weights[slot]) && weights[slot] >= 0.0f;
      sum += static_cast<double>(weights[slot]);
    }
    if (!usable || sum <= 0.0) continue;
    for (std::size_t slot = 0; slot < shares.size(); ++slot) {
      shares[slot] = static_cast<double>(weights[slot]) / sum;
    }
    sum_of_entropies += entropy_of(shares.data(), gate_weights.cols);
    ++num_counted;
  }
  return num_counted == 0 ? 0.0 : sum_of_entropies / static_cast<double>(num_counted);
}

DropRates drop_rates(const PermutationTotals& totals, int64_t num_tokens) {
  if (totals.kept_assignments < 0 || totals.dropped_assignments < 0) {
    refuse("totals hold ", totals.kept_assignments, " kept and ", totals.dropped_assignments,
           " dropped assignments, must be 0 or more");
  }
  if (totals.fully_dropped_tokens < 0 || totals.fully_dropped_tokens > num_tokens) {
    refuse("totals hold ", totals.fully_dropped_tokens, " fully dropped tokens, must be in [0, ",
           num_tokens, "]");
  }
  DropRates rates;
  const double kept = static_cast<double>(totals.kept_assignments);
  const double all = kept + static_cast<double>(totals.dropped_assignments);
  if (all > 0.0) rates.assignments_kept = kept / all;
  if (num_tokens > 0) {
    rates.tokens_served = static_cast<double>(num_tokens - totals.fully_dropped_tokens) /
                          static_cast<double>(num_tokens);
  }
  return rates;
}

}  // namespace switchyard

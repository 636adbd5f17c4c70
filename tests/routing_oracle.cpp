#include "tests/routing_oracle.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>

namespace switchyard::test {
namespace {

constexpr double kRounding = 0x1p-24;  // half a unit in the last place of float32
constexpr double kScoreError = 5e-7;   // eight such: exponential, sum, division
constexpr double kWeightError = 4e-6;
constexpr double kVanishing = 2.0 * FLT_MIN;  // the library drops what is subnormal in some sums
constexpr double kLowest = -std::numeric_limits<double>::infinity();

using Ids = std::vector<int32_t>;

size_t at(int32_t id) { return static_cast<size_t>(id); }

/// Scores by expert, and how far float32 may be from them.
struct Scores {
  Ids finite;
  Ids ranked;
  std::vector<double> score;
  std::vector<double> selection;
  std::vector<double> slack;  ///< of selection, absolute; 0: float32 has it exactly
  double max_logit = kLowest;
  double denominator = 0.0;
};

bool is_softmax(const RouterConfig& config) {
  return config.score_function == ScoreFunction::kSoftmax;
}

bool limits_groups(const RouterConfig& config) { return config.top_groups < config.num_groups; }

/// Below this a score has lost bits: it, or the exponential under its root, is subnormal.
double smallest_exact(const RouterConfig& config) {
  const bool root = config.score_function == ScoreFunction::kSqrtSoftplus;
  return root ? std::sqrt(kVanishing) : kVanishing;
}

double plain_score(ScoreFunction function, double x) {
  switch (function) {
    case ScoreFunction::kSigmoid:
      return x < 0.0 ? std::exp(x) / (1.0 + std::exp(x)) : 1.0 / (1.0 + std::exp(-x));
    case ScoreFunction::kSqrtSoftplus:
      return std::sqrt(std::max(x, 0.0) + std::log1p(std::exp(-std::fabs(x))));
    case ScoreFunction::kIdentity:
    case ScoreFunction::kSoftmax:
      break;
  }
  return x;
}

/// float32 forms x - max before the exponential: that rounding is relative error of the result.
double softmax_error(double distance) { return kScoreError + std::fabs(distance) * kRounding; }

Scores score(const RouterConfig& config, const OracleInput& input) {
  Scores s;
  const size_t num_experts = input.logits.size();
  s.score.assign(num_experts, 0.0);
  s.selection.assign(num_experts, 0.0);
  s.slack.assign(num_experts, 0.0);
  for (size_t e = 0; e < num_experts; ++e) {
    if (!input.expert_mask.empty() && input.expert_mask[e] == 0) continue;
    if (!std::isfinite(input.logits[e])) continue;
    s.finite.push_back(static_cast<int32_t>(e));
    s.max_logit = std::max<double>(s.max_logit, input.logits[e]);
  }
  for (const int32_t e : s.finite) s.denominator += std::exp(input.logits[at(e)] - s.max_logit);

  const bool summed_groups = limits_groups(config) && config.group_score != GroupScore::kMax;
  const bool by_logits = is_softmax(config) && input.selection_bias.empty() && !summed_groups;
  for (const int32_t e : s.finite) {
    const double x = input.logits[at(e)];
    const double bias = input.selection_bias.empty() ? 0.0 : input.selection_bias[at(e)];
    double relative = kScoreError;
    if (is_softmax(config)) {
      s.score[at(e)] = std::exp(x - s.max_logit) / s.denominator;
      relative = softmax_error(x - s.max_logit);
    } else {
      s.score[at(e)] = plain_score(config.score_function, x);
    }
    if (by_logits) {
      s.selection[at(e)] = x;
    } else if (config.score_function == ScoreFunction::kIdentity) {
      // One float32 addition: the double sum rounded is the same number.
      s.selection[at(e)] = static_cast<float>(x + bias);
    } else {
      s.selection[at(e)] = s.score[at(e)] + bias;
      s.slack[at(e)] = relative * s.score[at(e)] + kRounding * std::fabs(s.selection[at(e)]) +
                       smallest_exact(config);
    }
    if (std::isfinite(s.selection[at(e)]) && std::fabs(s.selection[at(e)]) <= FLT_MAX) {
      s.ranked.push_back(e);
    }
  }
  return s;
}

/// `ids`, ascending, by descending value; a stable sort leaves ties with the lower id first.
Ids sorted(Ids ids, const std::vector<double>& value) {
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return value[at(a)] > value[at(b)]; });
  return ids;
}

struct Groups {
  std::vector<bool> kept;
  bool certain = true;  ///< float32 must keep the same ones
};

Groups choose_groups(const RouterConfig& config, const Scores& s) {
  const int32_t count = config.num_groups;
  Groups groups{std::vector<bool>(at(count), !limits_groups(config))};
  if (!limits_groups(config)) return groups;
  size_t terms = 1;
  if (config.group_score == GroupScore::kTop2Sum) terms = 2;
  if (config.group_score == GroupScore::kTopKSum) terms = at(config.top_k / config.top_groups);

  std::vector<double> value(at(count), kLowest);
  std::vector<double> slack(at(count), 0.0);
  const int32_t size = config.num_experts / count;
  for (int32_t g = 0; g < count; ++g) {
    Ids members;
    for (const int32_t e : s.ranked) {
      if (e / size == g) members.push_back(e);
    }
    if (members.empty()) continue;
    members = sorted(members, s.selection);
    members.resize(std::min(members.size(), terms));
    value[at(g)] = 0.0;
    double magnitude = 0.0;
    for (const int32_t e : members) {
      value[at(g)] += s.selection[at(e)];
      magnitude += std::fabs(s.selection[at(e)]);
      slack[at(g)] += s.slack[at(e)];
    }
    if (members.size() > 1) slack[at(g)] += 6.0 * kRounding * magnitude;
    value[at(g)] = std::clamp<double>(value[at(g)], -FLT_MAX, FLT_MAX);
  }
  Ids order(at(count));
  std::iota(order.begin(), order.end(), 0);
  order = sorted(order, value);
  for (int32_t i = 0; i < config.top_groups; ++i) groups.kept[at(order[at(i)])] = true;
  for (const int32_t in : order) {
    for (const int32_t out : order) {
      if (!groups.kept[at(in)] || groups.kept[at(out)]) continue;
      // Infinite for an empty group, and then nothing is near it.
      const double distance = value[at(in)] - value[at(out)];
      const double reach = slack[at(in)] + slack[at(out)];
      if (reach > 0.0 && distance <= reach) groups.certain = false;
    }
  }
  return groups;
}

Ids choose(const RouterConfig& config, const Scores& s, const Groups& groups) {
  Ids candidates;
  for (const int32_t e : s.ranked) {
    if (groups.kept[at(e / (config.num_experts / config.num_groups))]) candidates.push_back(e);
  }
  candidates = sorted(candidates, s.selection);
  candidates.resize(std::min(candidates.size(), at(config.top_k)));
  return candidates;
}

void fill(const RouterConfig& config, const OracleInput& input, Ids& ids) {
  for (const bool enabled : {true, false}) {
    for (int32_t e = 0; e < config.num_experts && ids.size() < at(config.top_k); ++e) {
      const bool is_enabled = input.expert_mask.empty() || input.expert_mask[at(e)] != 0;
      if (is_enabled == enabled && std::count(ids.begin(), ids.end(), e) == 0) ids.push_back(e);
    }
  }
}

struct Weight {
  double value = 0.0;
  double relative = kWeightError;
  bool judged = true;  ///< false where float32 leaves its normal range on the way
};

std::vector<Weight> weigh(const RouterConfig& config, const OracleInput& input, const Scores& s,
                          const Ids& chosen) {
  std::vector<Weight> weights;
  double total = 0.0;
  double magnitude = 0.0;
  double max_chosen = kLowest;
  for (const int32_t e : chosen) max_chosen = std::max<double>(max_chosen, input.logits[at(e)]);
  for (const int32_t e : chosen) {
    Weight w;
    const double x = input.logits[at(e)];
    if (is_softmax(config)) {
      const double distance = x - (config.renormalize ? max_chosen : s.max_logit);
      w.value = std::exp(distance);
      w.relative = softmax_error(distance);
    } else {
      w.value = s.score[at(e)];
    }
    w.judged = std::fabs(w.value) >= smallest_exact(config) || w.value == 0.0;
    total += w.value;
    magnitude += std::fabs(w.value);
    weights.push_back(w);
  }
  double divisor = 1.0;
  if (config.renormalize) divisor = total;
  if (is_softmax(config) && !config.renormalize) divisor = s.denominator;
  const bool ill =
      config.renormalize && (magnitude * 1e-4 > std::fabs(total) || magnitude > 0x1p127 ||
                             std::fabs(total) < smallest_exact(config));
  for (Weight& w : weights) {
    if (config.renormalize && total == 0.0) {
      w.value = 0.0;
      w.judged = w.judged && !ill;
      continue;
    }
    if (config.renormalize) w.relative += 8.0 * kRounding * magnitude / std::fabs(total);
    w.value = w.value / divisor * config.routed_scaling_factor;
    const double size = std::fabs(w.value);
    const bool in_range = w.value == 0.0 || (size >= kVanishing && size <= 0x1p127);
    w.judged = w.judged && in_range && !ill;
  }
  return weights;
}

}  // namespace

OracleRow route_in_float64(const RouterConfig& config, const OracleInput& input) {
  const Scores s = score(config, input);
  OracleRow row;
  row.expert_ids = choose(config, s, choose_groups(config, s));
  row.num_chosen = static_cast<int64_t>(row.expert_ids.size());
  fill(config, input, row.expert_ids);
  row.degenerate = s.finite.empty();
  row.log_sum_exp = s.max_logit + std::log(s.denominator);
  row.probability.assign(input.logits.size(), 0.0);
  double total = 0.0;
  double magnitude = 0.0;
  for (const int32_t e : s.finite) {
    total += s.score[at(e)];
    magnitude += std::fabs(s.score[at(e)]);
  }
  for (const int32_t e : s.finite) {
    const double share = total == 0.0 ? 0.0 : s.score[at(e)] / total;
    row.probability[at(e)] = std::clamp(share, 0.0, 1.0);
  }
  const bool ill = magnitude * 1e-4 > std::fabs(total) || magnitude > 0x1p127 ||
                   std::fabs(total) < smallest_exact(config);
  row.probability_slack = ill ? 2.0 : 8e-6 * magnitude / std::fabs(total);
  return row;
}

std::string contradiction(const RouterConfig& config, const OracleInput& input,
                          const std::vector<int32_t>& expert_ids,
                          const std::vector<float>& gate_weights) {
  const Scores s = score(config, input);
  const Groups groups = choose_groups(config, s);
  const Ids chosen = choose(config, s, groups);
  Ids expected = chosen;
  fill(config, input, expected);

  std::ostringstream problem;
  problem.precision(9);
  Ids actual = expert_ids;
  if (actual != expected) {
    for (size_t slot = 0; slot < expected.size() && groups.certain; ++slot) {
      const int32_t want = expected[slot];
      const int32_t got = actual[slot];
      if (got == want) continue;
      problem.str("");
      problem << "slot " << slot << ": expert " << got << ", float64 says " << want;
      if (slot >= chosen.size() || got < 0 || got >= config.num_experts) return problem.str();
      const double distance = std::fabs(s.selection[at(got)] - s.selection[at(want)]);
      // Sorting perturbed values moves the value at a place by the largest perturbation at most.
      const double reach = 2.0 * (s.slack[at(got)] + s.slack[at(want)]);
      if (s.slack[at(got)] == 0.0 || distance > reach) {
        problem << "; scores " << s.selection[at(got)] << " and " << s.selection[at(want)];
        return problem.str();
      }
    }
    Ids unique = actual;
    std::sort(unique.begin(), unique.end());
    if (std::adjacent_find(unique.begin(), unique.end()) != unique.end()) return "repeated ids";
    // Another set of groups may rank another number of experts.
    if (!groups.certain) return "";
  }

  Ids weighed(actual.begin(), actual.begin() + static_cast<int64_t>(chosen.size()));
  const std::vector<Weight> weights = weigh(config, input, s, weighed);
  for (size_t slot = 0; slot < gate_weights.size(); ++slot) {
    const double got = gate_weights[slot];
    const Weight want = slot < weights.size() ? weights[slot] : Weight{};
    if (std::isnan(got)) return "weight " + std::to_string(slot) + " is NaN";
    if (!want.judged) continue;
    if (std::fabs(got - want.value) > want.relative * std::fabs(want.value)) {
      problem.str("");
      problem << "weight " << slot << " is " << got << ", float64 says " << want.value;
      return problem.str();
    }
  }
  return "";
}

}  // namespace switchyard::test

#include "cpu/reference/row_scores.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "switchyard/numerics.h"

namespace switchyard::cpu::reference {
namespace {

float apply(ScoreFunction function, float logit) {
  switch (function) {
    case ScoreFunction::kSigmoid:
      return numerics::sigmoid(logit);
    case ScoreFunction::kSqrtSoftplus:
      return numerics::sqrt_softplus(logit);
    case ScoreFunction::kSoftmax:
    case ScoreFunction::kIdentity:
      break;
  }
  return logit + 0.0f;  // -0 becomes +0
}

/// Softmax is monotone, so without a bias or sums of probabilities the logits decide.
bool selects_on_logits(const RouterConfig& config, bool has_bias) {
  const bool sums_groups =
      config.num_groups != config.top_groups && config.group_score != GroupScore::kMax;
  return config.score_function == ScoreFunction::kSoftmax && !has_bias && !sums_groups;
}

}  // namespace

float folded_sum(std::vector<float> terms) {
  if (terms.empty()) return 0.0f;
  terms.resize(std::bit_ceil(terms.size()), 0.0f);
  for (size_t half = terms.size() / 2; half > 0; half /= 2) {
    for (size_t i = 0; i < half; ++i) terms[i] += terms[i + half];
  }
  return terms[0];
}

bool outranks(float first_score, int32_t first_id, float second_score, int32_t second_id) {
  if (first_score != second_score) return first_score > second_score;
  return first_id < second_id;
}

std::vector<int32_t> best_of(std::vector<int32_t> ids, const std::vector<float>& scores,
                             int32_t count) {
  std::sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    return outranks(scores[static_cast<size_t>(a)], a, scores[static_cast<size_t>(b)], b);
  });
  if (static_cast<int32_t>(ids.size()) > count) ids.resize(static_cast<size_t>(count));
  return ids;
}

RowScores score_row(const RouterConfig& config, const RoutingInputs& inputs, int64_t token) {
  RowScores row;
  const auto num_experts = static_cast<size_t>(config.num_experts);
  row.logit.resize(num_experts);
  row.score.resize(num_experts);
  row.selection.resize(num_experts);
  row.probability.resize(num_experts);
  for (int32_t expert = 0; expert < config.num_experts; ++expert) {
    const float logit = element_at(inputs.logits, token, expert);
    row.logit[static_cast<size_t>(expert)] = logit;
    const bool enabled = inputs.expert_mask.empty() || inputs.expert_mask[expert] != 0;
    if (enabled && std::isfinite(logit)) row.finite.push_back(expert);
  }
  if (row.finite.empty()) return row;

  row.max_logit = -INFINITY;
  for (const int32_t expert : row.finite) {
    row.max_logit = std::max(row.max_logit, row.logit[static_cast<size_t>(expert)]);
  }
  std::vector<float> exponentials(num_experts, 0.0f);
  for (const int32_t expert : row.finite) {
    const auto e = static_cast<size_t>(expert);
    exponentials[e] = numerics::exp_or_zero(row.logit[e] - row.max_logit);
  }
  row.denominator = folded_sum(exponentials);
  row.log_sum_exp = row.max_logit + numerics::log(row.denominator);

  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  const bool on_logits = selects_on_logits(config, !inputs.selection_bias.empty());
  std::vector<float> scores(num_experts, 0.0f);
  for (const int32_t expert : row.finite) {
    const auto e = static_cast<size_t>(expert);
    row.score[e] =
        softmax ? exponentials[e] / row.denominator : apply(config.score_function, row.logit[e]);
    scores[e] = row.score[e];
    row.selection[e] = on_logits ? row.logit[e] : row.score[e];
    if (!inputs.selection_bias.empty()) row.selection[e] += inputs.selection_bias[expert];
    if (std::isfinite(row.selection[e])) row.ranked.push_back(expert);
  }
  const float total = softmax ? 1.0f : folded_sum(scores);
  for (const int32_t expert : row.finite) {
    const auto e = static_cast<size_t>(expert);
    const bool divisible = total != 0.0f && std::isfinite(total);
    row.probability[e] = divisible ? row.score[e] / total : 0.0f;
  }
  return row;
}

std::vector<float> chosen_weights(const RouterConfig& config, const RowScores& row,
                                  const std::vector<int32_t>& chosen) {
  std::vector<float> weights;
  if (chosen.empty()) return weights;
  float total = 1.0f;
  if (config.score_function == ScoreFunction::kSoftmax) {
    float reference_logit = row.max_logit;
    if (config.renormalize) {
      reference_logit = -INFINITY;
      for (const int32_t expert : chosen) {
        reference_logit = std::max(reference_logit, row.logit[static_cast<size_t>(expert)]);
      }
    }
    for (const int32_t expert : chosen) {
      weights.push_back(numerics::exp(row.logit[static_cast<size_t>(expert)] - reference_logit));
    }
    total = config.renormalize ? folded_sum(weights) : row.denominator;
  } else {
    for (const int32_t expert : chosen) weights.push_back(row.score[static_cast<size_t>(expert)]);
    if (config.renormalize) total = folded_sum(weights);
  }
  const bool divisible = total != 0.0f && std::isfinite(total);
  for (float& weight : weights) {
    weight = divisible ? weight / total * config.routed_scaling_factor : 0.0f;
  }
  return weights;
}

}  // namespace switchyard::cpu::reference

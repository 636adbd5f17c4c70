#include "cpu/reference/hash_routing.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/hash_routing.h"
#include "cpu/reference/row_scores.h"
#include "switchyard/numerics.h"

namespace switchyard::cpu::reference {
namespace {

float score_of(const RouterConfig& config, float logit, float max_logit) {
  switch (config.score_function) {
    case ScoreFunction::kSoftmax:
      return numerics::exp(logit - max_logit);
    case ScoreFunction::kSigmoid:
      return numerics::sigmoid(logit);
    case ScoreFunction::kSqrtSoftplus:
      return numerics::sqrt_softplus(logit);
    case ScoreFunction::kIdentity:
      break;
  }
  return logit + 0.0f;  // -0 becomes +0
}

float max_finite(const std::vector<float>& logits) {
  float max = -INFINITY;
  for (const float logit : logits) {
    if (std::isfinite(logit)) max = std::max(max, logit);
  }
  return max;
}

float softmax_denominator(const std::vector<float>& logits) {
  const float max = max_finite(logits);
  std::vector<float> terms;
  for (const float logit : logits) {
    terms.push_back(std::isfinite(logit) ? numerics::exp_or_zero(logit - max) : 0.0f);
  }
  return folded_sum(terms);
}

std::vector<float> weights_of(const HashRoutingCall& call, int64_t token,
                              const std::vector<float>& chosen) {
  const RouterConfig& config = call.config;
  const bool raw_softmax = config.score_function == ScoreFunction::kSoftmax && !config.renormalize;
  std::vector<float> row;
  for (int32_t expert = 0; expert < config.num_experts && raw_softmax; ++expert) {
    row.push_back(element_at(call.logits, token, expert));
  }
  const float max = max_finite(raw_softmax ? row : chosen);
  std::vector<float> scores;
  for (const float logit : chosen) {
    scores.push_back(std::isfinite(logit) ? score_of(config, logit, max) : 0.0f);
  }
  float total = 1.0f;
  if (config.renormalize) total = folded_sum(scores);
  if (raw_softmax) total = softmax_denominator(row);
  const bool divisible = total != 0.0f && std::isfinite(total);
  for (float& score : scores) {
    score = divisible ? score / total * config.routed_scaling_factor : 0.0f;
  }
  return scores;
}

void look_up_experts(const HashRoutingCall& call) {
  const RouterConfig& config = call.config;
  const RoutingResult& result = call.result;
  std::fill_n(result.tokens_per_expert.data, result.tokens_per_expert.size, 0);
  int64_t degenerate = 0;
  for (int64_t token = 0; token < call.num_tokens(); ++token) {
    const int32_t token_id = call.token_ids[token];
    std::vector<int32_t> ids(static_cast<size_t>(config.num_slots()), -1);
    std::vector<float> weights(ids.size(), 0.0f);
    if (token_id >= 0) {
      const int32_t* listed = call.table.row(token_id);
      std::copy_n(listed, config.top_k, ids.begin());
      std::fill(weights.begin(), weights.end(), plain_hash_weight(call.config));
      if (call.logits.data != nullptr) {
        std::vector<float> chosen;
        for (int32_t slot = 0; slot < config.top_k; ++slot) {
          chosen.push_back(element_at(call.logits, token, listed[slot]));
        }
        degenerate += max_finite(chosen) == -INFINITY ? 1 : 0;
        const std::vector<float> scored = weights_of(call, token, chosen);
        std::copy(scored.begin(), scored.end(), weights.begin());
      }
      for (int32_t slot = config.top_k; slot < config.num_slots(); ++slot) {
        ids[static_cast<size_t>(slot)] = config.num_experts + slot - config.top_k;
        weights[static_cast<size_t>(slot)] = config.shared_expert_weight;
      }
    }
    for (int32_t slot = 0; slot < config.num_slots(); ++slot) {
      const int32_t expert = ids[static_cast<size_t>(slot)];
      const float weight = weights[static_cast<size_t>(slot)];
      result.expert_ids.row(token)[slot] = expert;
      set_element(result.gate_weights, token, slot, weight);
      if (expert >= 0 && !result.tokens_per_expert.empty()) ++result.tokens_per_expert[expert];
    }
  }
  if (result.num_degenerate_rows != nullptr) *result.num_degenerate_rows = degenerate;
}

class ReferenceHashRouter final : public HashRouter::Implementation {
 public:
  explicit ReferenceHashRouter(const RouterConfig& router_config)
      : Implementation(router_config, Backend::kReference) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void route(const HashRoutingInputs& inputs, const RoutingResult& result, std::span<std::byte>,
             StreamView) const override {
    look_up_experts(HashRoutingCall(config, inputs, result));
  }
};

}  // namespace

std::unique_ptr<HashRouter::Implementation> make_hash_router(const RouterConfig& config) {
  return std::make_unique<ReferenceHashRouter>(config);
}

}  // namespace switchyard::cpu::reference

#include "cpu/reference/expert_choice.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/expert_choice.h"
#include "cpu/reference/row_scores.h"
#include "switchyard/numerics.h"

namespace switchyard::cpu::reference {
namespace {

/// Softmax of a line of the matrix; what is not finite or takes no part scores 0.
std::vector<float> softmax(const std::vector<float>& logits, const std::vector<bool>& takes_part) {
  float max = -INFINITY;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (takes_part[i] && std::isfinite(logits[i])) max = std::max(max, logits[i]);
  }
  std::vector<float> scores(logits.size(), 0.0f);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (takes_part[i] && std::isfinite(logits[i])) {
      scores[i] = numerics::exp_or_zero(logits[i] - max);
    }
  }
  const float denominator = folded_sum(scores);
  for (float& score : scores) {
    if (score != 0.0f) score /= denominator;
  }
  return scores;
}

std::vector<float> column(const ConstTensorView& logits, int32_t expert) {
  std::vector<float> out;
  for (int64_t token = 0; token < logits.rows; ++token) {
    out.push_back(element_at(logits, token, expert));
  }
  return out;
}

std::vector<float> row(const ConstTensorView& logits, int64_t token) {
  std::vector<float> out;
  for (int32_t expert = 0; expert < logits.cols; ++expert) {
    out.push_back(element_at(logits, token, expert));
  }
  return out;
}

void choose_tokens(const ExpertChoiceCall& call) {
  const auto num_tokens = static_cast<size_t>(call.num_tokens());
  std::vector<bool> takes_part;
  std::vector<int32_t> candidates;
  for (int64_t token = 0; token < call.num_tokens(); ++token) {
    takes_part.push_back(call.takes_part(token));
    if (takes_part.back()) candidates.push_back(static_cast<int32_t>(token));
  }
  const bool over_experts = call.score == ExpertChoiceScore::kSoftmaxOverExperts;
  std::vector<std::vector<float>> row_scores;
  const std::vector<bool> all(static_cast<size_t>(call.num_experts()), true);
  for (size_t token = 0; token < num_tokens && over_experts; ++token) {
    row_scores.push_back(softmax(row(call.logits, static_cast<int64_t>(token)), all));
  }

  for (int32_t expert = 0; expert < call.num_experts(); ++expert) {
    const std::vector<float> logits = column(call.logits, expert);
    std::vector<float> scores;
    if (over_experts) {
      for (const auto& token_scores : row_scores) {
        scores.push_back(token_scores[static_cast<size_t>(expert)]);
      }
    } else {
      scores = softmax(logits, takes_part);
    }
    const std::vector<float>& rank = over_experts ? scores : logits;
    std::vector<int32_t> order = candidates;
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      const bool a_finite = std::isfinite(logits[static_cast<size_t>(a)]);
      const bool b_finite = std::isfinite(logits[static_cast<size_t>(b)]);
      if (!a_finite || !b_finite) return a_finite && !b_finite;
      return rank[static_cast<size_t>(a)] > rank[static_cast<size_t>(b)];
    });
    for (int64_t place = 0; place < call.capacity(); ++place) {
      const bool taken = place < static_cast<int64_t>(order.size());
      const int32_t token = taken ? order[static_cast<size_t>(place)] : -1;
      call.token_ids.row(expert)[place] = token;
      call.gate_weights.row(expert)[place] = taken ? scores[static_cast<size_t>(token)] : 0.0f;
    }
  }
}

class ReferenceExpertChoiceRouter final : public ExpertChoiceRouter::Implementation {
 public:
  explicit ReferenceExpertChoiceRouter(const ExpertChoiceConfig& choice_config)
      : Implementation(choice_config, Backend::kReference) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void route(const ExpertChoiceInputs& inputs, const ExpertChoiceResult& result,
             std::span<std::byte>, StreamView) const override {
    choose_tokens(ExpertChoiceCall(config, inputs, result));
  }
};

}  // namespace

std::unique_ptr<ExpertChoiceRouter::Implementation> make_expert_choice_router(
    const ExpertChoiceConfig& config) {
  return std::make_unique<ReferenceExpertChoiceRouter>(config);
}

}  // namespace switchyard::cpu::reference

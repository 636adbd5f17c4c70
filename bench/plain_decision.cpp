#include "bench/plain_decision.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace switchyard::bench {

PlainDecisions::PlainDecisions(int32_t num_experts, int32_t top_k, int32_t fast_slots, float bonus,
                               double decay)
    : num_experts_(num_experts),
      top_k_(top_k),
      fast_slots_(fast_slots),
      bonus_(bonus),
      decay_(decay),
      affinity_(static_cast<size_t>(num_experts)),
      resident_(static_cast<size_t>(num_experts)) {}

PlainDecisions::Decision PlainDecisions::decide(const float* logits) {
  std::vector<std::pair<float, int32_t>> scores;
  for (int32_t expert = 0; expert < num_experts_; ++expert) {
    const auto e = static_cast<size_t>(expert);
    const float bonus = resident_[e] ? bonus_ : 0.0f;
    scores.emplace_back(std::isfinite(logits[e]) ? logits[e] + bonus : -INFINITY, expert);
  }
  std::sort(scores.begin(), scores.end(), [](const auto& a, const auto& b) {
    return a.first > b.first || (a.first == b.first && a.second < b.second);
  });
  Decision decision;
  float sum = 0.0f;
  const auto top_k = static_cast<size_t>(top_k_);
  const float greatest = logits[scores[0].second];
  for (size_t i = 0; i < top_k; ++i) {
    decision.expert_ids.push_back(scores[i].second);
    decision.gate_weights.push_back(std::exp(logits[scores[i].second] - greatest));
    sum += decision.gate_weights.back();
  }
  for (float& weight : decision.gate_weights) weight /= sum;

  for (double& score : affinity_) score *= decay_;
  std::vector<bool> in_use(resident_.size());
  for (const int32_t expert : decision.expert_ids) {
    affinity_[static_cast<size_t>(expert)] += 1.0;
    in_use[static_cast<size_t>(expert)] = true;
  }
  for (const int32_t expert : decision.expert_ids) {
    if (resident_[static_cast<size_t>(expert)]) {
      ++hits_;
      continue;
    }
    ++misses_;
    if (num_resident_ == fast_slots_) {
      int32_t leaving = -1;
      for (int32_t other = 0; other < num_experts_; ++other) {
        const auto o = static_cast<size_t>(other);
        if (!resident_[o] || in_use[o]) continue;
        if (leaving < 0 || affinity_[o] < affinity_[static_cast<size_t>(leaving)]) leaving = other;
      }
      if (leaving < 0) continue;
      resident_[static_cast<size_t>(leaving)] = false;
      --num_resident_;
      decision.requests.push_back({0, leaving, PagingDirection::kOut, PagingPriority::kUrgent});
    }
    resident_[static_cast<size_t>(expert)] = true;
    ++num_resident_;
    decision.requests.push_back({0, expert, PagingDirection::kIn, PagingPriority::kUrgent});
  }
  return decision;
}

}  // namespace switchyard::bench

#include "switchyard/expert_transitions.h"

#include <algorithm>

#include "cpu/expert_ids.h"
#include "cpu/view_checks.h"

namespace switchyard {

using cpu::check_optional_vector;
using cpu::check_range;
using cpu::check_vector;

namespace {

void check_ids(const char* name, VectorView<const int32_t> ids, int32_t num_experts) {
  check_vector(name, ids, std::max<int64_t>(ids.size, 0));
  for (int64_t i = 0; i < ids.size; ++i) {
    if (ids[i] < -1 || ids[i] >= num_experts) {
      cpu::refuse(name, "[", i, "] is ", ids[i], ", must be in [-1, ", num_experts - 1, "]");
    }
  }
}

int32_t checked_size(int32_t num_experts) {
  check_range("num_experts", num_experts, 1, kMaxTransitionExperts);
  return num_experts;
}

}  // namespace

ExpertTransitions::ExpertTransitions(int32_t num_experts)
    : num_experts_(checked_size(num_experts)),
      counts_(static_cast<size_t>(num_experts) * static_cast<size_t>(num_experts)),
      visits_(static_cast<size_t>(num_experts)) {}

void ExpertTransitions::learn(VectorView<const int32_t> from, VectorView<const int32_t> to) {
  check_ids("from", from, num_experts_);
  check_ids("to", to, num_experts_);
  learn_checked(from, to);
}

void ExpertTransitions::learn_checked(VectorView<const int32_t> from,
                                      VectorView<const int32_t> to) {
  const auto stride = static_cast<size_t>(num_experts_);
  for (int64_t i = 0; i < from.size; ++i) {
    if (from[i] < 0) continue;
    const auto row = static_cast<size_t>(from[i]);
    if (++visits_[row] >= kMostVisits) age(row);
    uint16_t* const counts = counts_.data() + row * stride;
    for (int64_t j = 0; j < to.size; ++j) {
      // Repeated ids could pass what a row of visits bounds; the count stops in time.
      if (to[j] >= 0 && counts[to[j]] < UINT16_MAX) ++counts[to[j]];
    }
  }
}

void ExpertTransitions::age(size_t row) {
  visits_[row] /= 2;
  const auto stride = static_cast<size_t>(num_experts_);
  uint16_t* const counts = counts_.data() + row * stride;
  for (size_t expert = 0; expert < stride; ++expert) {
    counts[expert] = static_cast<uint16_t>(counts[expert] / 2);
  }
}

void ExpertTransitions::predict(VectorView<const int32_t> from, VectorView<const float> prior,
                                VectorView<float> probabilities) const {
  check_ids("from", from, num_experts_);
  check_optional_vector("prior", prior, num_experts_);
  check_vector("probabilities", probabilities, num_experts_);
  int64_t num_from = 0;
  float prior_weight = 0.0f;
  for (int64_t i = 0; i < from.size; ++i) {
    if (from[i] < 0) continue;
    ++num_from;
    const float visits = static_cast<float>(visits_[static_cast<size_t>(from[i])]);
    prior_weight += kPriorVisits / (visits + kPriorVisits);
  }
  const float share = num_from > 0 ? 1.0f / static_cast<float>(num_from) : 0.0f;
  const float prior_share = num_from > 0 ? prior_weight * share : 1.0f;
  for (int64_t expert = 0; expert < num_experts_; ++expert) {
    probabilities[expert] = prior.empty() ? 0.0f : prior[expert] * prior_share;
  }
  const auto stride = static_cast<size_t>(num_experts_);
  for (int64_t i = 0; i < from.size; ++i) {
    if (from[i] < 0) continue;
    const auto row = static_cast<size_t>(from[i]);
    const uint16_t* const counts = counts_.data() + row * stride;
    const float weight = share / (static_cast<float>(visits_[row]) + kPriorVisits);
    float* const sums = probabilities.data;
    for (size_t expert = 0; expert < stride; ++expert) {
      sums[expert] += static_cast<float>(counts[expert]) * weight;
    }
  }
}

void ExpertTransitions::reset() {
  std::fill(counts_.begin(), counts_.end(), uint16_t{0});
  std::fill(visits_.begin(), visits_.end(), 0);
}

}  // namespace switchyard

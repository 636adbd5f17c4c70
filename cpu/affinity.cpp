// The front door of expert affinity: checks the config once and every call's arguments, hands
// changes over to the backend, and reads the state that all backends share with the host.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "cpu/affinity_state.h"
#include "cpu/backend_registry.h"
#include "cpu/refuse.h"
#include "cpu/view_checks.h"
#include "switchyard/expert_affinity.h"
#include "switchyard/expert_affinity_backend.h"

namespace switchyard {

using cpu::check_matrix;
using cpu::check_range;
using cpu::check_vector;
using cpu::kMaxTokens;
using cpu::load_relaxed;
using cpu::refuse;

namespace {

void check_not_negative(const char* name, float value) {
  if (!std::isfinite(value) || value < 0.0f) {
    refuse(name, " is ", value, ", must be finite and 0 or more");
  }
}

/// Of an id of 0 or more; 0 for one that no expert has.
uint32_t units_of(ExpertAffinity::Implementation& state, int32_t expert) {
  return expert < state.config.num_experts ? load_relaxed(state.units[expert]) : 0;
}

}  // namespace

void validate(const ExpertAffinityConfig& config) {
  check_range("num_experts", config.num_experts, 0, kMaxAffinityExperts);
  if (!(config.decay >= 0.0f && config.decay <= 1.0f)) {
    refuse("decay is ", config.decay, ", must be in [0, 1]");
  }
  check_not_negative("activation_boost", config.activation_boost);
  check_not_negative("max_score", config.max_score);
}

ExpertAffinity::ExpertAffinity(const ExpertAffinityConfig& config, Backend backend) {
  validate(config);
  implementation_ = cpu::make_affinity(config, backend);
}

ExpertAffinity::~ExpertAffinity() = default;
ExpertAffinity::ExpertAffinity(ExpertAffinity&&) noexcept = default;
ExpertAffinity& ExpertAffinity::operator=(ExpertAffinity&&) noexcept = default;

const ExpertAffinityConfig& ExpertAffinity::config() const { return implementation_->config; }

Backend ExpertAffinity::backend() const { return implementation_->backend; }

void ExpertAffinity::record(MatrixView<const int32_t> expert_ids, StreamView stream) {
  check_range("expert_ids rows", expert_ids.rows, 0, kMaxTokens);
  check_range("expert_ids columns", expert_ids.cols, 0, kMaxAffinityExperts);
  check_matrix("expert_ids", expert_ids, expert_ids.rows, expert_ids.cols);
  implementation_->record(expert_ids, stream);
}

void ExpertAffinity::update(StreamView stream) { implementation_->update(nullptr, stream); }

void ExpertAffinity::update(VectorView<const int64_t> tokens_per_expert, StreamView stream) {
  const int32_t num_experts = config().num_experts;
  if (tokens_per_expert.size < num_experts) {
    refuse("tokens_per_expert has ", tokens_per_expert.size, " elements, must have at least ",
           num_experts);
  }
  check_vector("tokens_per_expert", tokens_per_expert, tokens_per_expert.size);
  if (backend() != Backend::kCuda) {
    for (int32_t expert = 0; expert < num_experts; ++expert) {
      if (tokens_per_expert[expert] < 0) {
        refuse("tokens_per_expert of expert ", expert, " is ", tokens_per_expert[expert],
               ", must be 0 or more");
      }
    }
  }
  implementation_->update(tokens_per_expert.data, stream);
}

void ExpertAffinity::reset(StreamView stream) { implementation_->reset(stream); }

void ExpertAffinity::scores(VectorView<float> out) const {
  check_vector("out", out, config().num_experts);
  for (int64_t expert = 0; expert < out.size; ++expert) {
    out[expert] = affinity_score(load_relaxed(implementation_->units[expert]), config().max_score);
  }
}

void ExpertAffinity::activations(VectorView<int64_t> out) const {
  check_vector("out", out, config().num_experts);
  for (int64_t expert = 0; expert < out.size; ++expert) {
    out[expert] = load_relaxed(implementation_->activations[expert]);
  }
}

VectorView<const uint32_t> ExpertAffinity::units() const { return implementation_->units.view(); }

int64_t ExpertAffinity::top_k(VectorView<int32_t> experts) const {
  if (experts.size < 0) refuse("experts has ", experts.size, " elements, must have 0 or more");
  check_vector("experts", experts, experts.size);
  const auto num_experts = static_cast<uint32_t>(config().num_experts);
  const auto count = std::min<int64_t>(experts.size, num_experts);
  // One look at each score, since it may change meanwhile.
  std::array<uint64_t, kMaxAffinityExperts> keys;
  for (uint32_t expert = 0; expert < num_experts; ++expert) {
    keys[expert] = uint64_t{load_relaxed(implementation_->units[expert])} << 32 | ~expert;
  }
  std::partial_sort(keys.begin(), keys.begin() + count, keys.begin() + num_experts,
                    std::greater<>());
  for (int64_t i = 0; i < count; ++i) {
    experts[i] = static_cast<int32_t>(~static_cast<uint32_t>(keys[static_cast<size_t>(i)]));
  }
  return count;
}

int32_t ExpertAffinity::least(VectorView<const int32_t> candidates) const {
  if (candidates.size < 0) {
    refuse("candidates has ", candidates.size, " elements, must have 0 or more");
  }
  check_vector("candidates", candidates, candidates.size);
  int32_t best = -1;
  uint32_t best_units = 0;
  for (int64_t i = 0; i < candidates.size; ++i) {
    const int32_t expert = candidates[i];
    if (expert < 0) refuse("candidate ", i, " is ", expert, ", must be 0 or more");
    const uint32_t units = units_of(*implementation_, expert);
    if (best < 0 || units < best_units || (units == best_units && expert < best)) {
      best = expert;
      best_units = units;
    }
  }
  return best;
}

double ExpertAffinity::percentile(int32_t expert) const {
  if (expert < 0) refuse("expert is ", expert, ", must be 0 or more");
  const int32_t num_experts = config().num_experts;
  if (num_experts == 0) return 0.5;
  const uint32_t own = units_of(*implementation_, expert);
  int64_t twice = 0;
  for (int32_t other = 0; other < num_experts; ++other) {
    const uint32_t units = other == expert ? own : load_relaxed(implementation_->units[other]);
    twice += units < own ? 2 : static_cast<int64_t>(units == own);
  }
  return static_cast<double>(twice) / (2.0 * num_experts);
}

}  // namespace switchyard

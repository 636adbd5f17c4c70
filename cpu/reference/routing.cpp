#include "cpu/reference/routing.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "cpu/reference/resident_preference.h"
#include "cpu/reference/row_scores.h"
#include "switchyard/router_losses.h"

namespace switchyard::cpu::reference {
namespace {

class ReferenceRouter final : public Router::Implementation {
 public:
  explicit ReferenceRouter(const RouterConfig& router_config)
      : Implementation(router_config, Backend::kReference) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void route(const RoutingInputs& inputs, const RoutingResult& result, std::span<std::byte>,
             StreamView) const override {
    std::fill_n(result.tokens_per_expert.data, result.tokens_per_expert.size, 0);
    std::fill_n(result.loss_sums.data, result.loss_sums.size, 0);
    int64_t degenerate = 0;
    for (int64_t token = 0; token < inputs.logits.rows; ++token) {
      if (!result.sacrificed_mass.empty()) result.sacrificed_mass[token] = 0.0f;
      if (!inputs.token_mask.empty() && inputs.token_mask[token] == 0) {
        write_padding(result, token);
        continue;
      }
      const RowScores row = score_row(config, inputs, token);
      degenerate += row.finite.empty() ? 1 : 0;
      route_row(row, inputs, result, token);
      if (!result.loss_sums.empty()) add_losses(row, result.loss_sums);
    }
    if (result.num_degenerate_rows != nullptr) *result.num_degenerate_rows = degenerate;
  }

 private:
  /// The groups that `row` may choose from, as a flag each.
  [[nodiscard]] std::vector<bool> keep_groups(const RowScores& row) const {
    const auto num_groups = static_cast<size_t>(config.num_groups);
    std::vector<bool> keep(num_groups, config.num_groups == config.top_groups);
    if (config.num_groups == config.top_groups) return keep;
    const int32_t group_size = config.num_experts / config.num_groups;
    int32_t summed = 1;
    if (config.group_score == GroupScore::kTop2Sum) summed = 2;
    if (config.group_score == GroupScore::kTopKSum) summed = config.top_k / config.top_groups;

    std::vector<float> scores(num_groups, -INFINITY);
    std::vector<int32_t> groups;
    for (int32_t group = 0; group < config.num_groups; ++group) {
      groups.push_back(group);
      std::vector<int32_t> members;
      for (const int32_t expert : row.ranked) {
        if (expert / group_size == group) members.push_back(expert);
      }
      if (members.empty()) continue;
      std::vector<float> best;
      for (const int32_t expert : best_of(members, row.selection, summed)) {
        best.push_back(row.selection[static_cast<size_t>(expert)]);
      }
      const float sum = std::min(folded_sum(best), FLT_MAX);
      // Not std::max: opposed infinities within the tree make a NaN, which has no place in an
      // order.
      scores[static_cast<size_t>(group)] = sum > -FLT_MAX ? sum : -FLT_MAX;
    }
    for (const int32_t group : best_of(groups, scores, config.top_groups)) {
      keep[static_cast<size_t>(group)] = true;
    }
    return keep;
  }

  void route_row(const RowScores& row, const RoutingInputs& inputs, const RoutingResult& result,
                 int64_t token) const {
    const std::vector<bool> keep = keep_groups(row);
    const int32_t group_size = config.num_experts / config.num_groups;
    std::vector<int32_t> candidates;
    for (const int32_t expert : row.ranked) {
      if (keep[static_cast<size_t>(expert / group_size)]) candidates.push_back(expert);
    }
    std::vector<int32_t> chosen = best_of(candidates, row.selection, config.top_k);
    if (inputs.residency.is_active()) {
      const float sacrificed = prefer_residents(config, inputs.residency, row, candidates, chosen);
      if (!result.sacrificed_mass.empty()) result.sacrificed_mass[token] = sacrificed;
    }
    const std::vector<float> weights = chosen_weights(config, row, chosen);
    fill_up(chosen, inputs.expert_mask);

    for (int32_t slot = 0; slot < config.num_slots(); ++slot) {
      const bool routed = slot < config.top_k;
      const auto index = static_cast<size_t>(slot);
      const int32_t expert = routed ? chosen[index] : config.num_experts + slot - config.top_k;
      float weight = config.shared_expert_weight;
      if (routed) weight = index < weights.size() ? weights[index] : 0.0f;
      write(result, token, slot, expert, weight);
      if (!result.tokens_per_expert.empty()) ++result.tokens_per_expert[expert];
    }
  }

  /// Completes `chosen` to top_k with the lowest ids not in it, enabled experts before masked ones.
  void fill_up(std::vector<int32_t>& chosen, VectorView<const uint8_t> expert_mask) const {
    for (const bool masked : {false, true}) {
      for (int32_t expert = 0; expert < config.num_experts; ++expert) {
        if (static_cast<int32_t>(chosen.size()) == config.top_k) return;
        const bool is_masked = !expert_mask.empty() && expert_mask[expert] == 0;
        if (is_masked != masked) continue;
        if (std::find(chosen.begin(), chosen.end(), expert) == chosen.end()) {
          chosen.push_back(expert);
        }
      }
    }
  }

  void write_padding(const RoutingResult& result, int64_t token) const {
    for (int32_t slot = 0; slot < config.num_slots(); ++slot) write(result, token, slot, -1, 0.0f);
  }

  static void write(const RoutingResult& result, int64_t token, int32_t slot, int32_t expert,
                    float weight) {
    result.expert_ids.row(token)[slot] = expert;
    set_element(result.gate_weights, token, slot, weight);
  }

  void add_losses(const RowScores& row, VectorView<int64_t> sums) const {
    using Layout = RouterLossLayout;
    if (row.finite.empty()) return;
    ++sums[Layout::kTokens];
    const double logsumexp =
        std::clamp<double>(row.log_sum_exp, -Layout::kMaxLogSumExp, Layout::kMaxLogSumExp);
    const double squared = logsumexp * logsumexp;
    sums[Layout::kZWhole] += static_cast<int64_t>(squared);
    sums[Layout::kZFraction] +=
        static_cast<int64_t>((squared - std::floor(squared)) / Layout::kFractionUnit);
    for (const int32_t expert : row.finite) {
      const float probability =
          std::clamp(row.probability[static_cast<size_t>(expert)], 0.0f, 1.0f);
      sums[Layout::kProbability + expert] += std::llrint(probability / Layout::kProbabilityUnit);
    }
  }
};

}  // namespace

std::unique_ptr<Router::Implementation> make_router(const RouterConfig& config) {
  return std::make_unique<ReferenceRouter>(config);
}

}  // namespace switchyard::cpu::reference

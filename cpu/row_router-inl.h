// Routes one row under any configuration: for small batches, and for rows that a block of rows
// leaves over.

// Per-target include guard
#if defined(SWITCHYARD_CPU_ROW_ROUTER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_ROW_ROUTER_INL_H_
#undef SWITCHYARD_CPU_ROW_ROUTER_INL_H_
#else
#define SWITCHYARD_CPU_ROW_ROUTER_INL_H_
#endif

#include <bit>
#include <cmath>

#include "cpu/resident_preference-inl.h"
#include "cpu/row_inputs-inl.h"
#include "cpu/row_scores-inl.h"
#include "cpu/row_selection-inl.h"
#include "cpu/row_weights-inl.h"
#include "hwy/highway.h"
#include "switchyard/router_losses.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Completes `chosen` to top_k with the lowest ids not in it, enabled experts before masked ones.
HWY_NOINLINE void FillUp(const RouteTask& task, size_t count, int32_t* HWY_RESTRICT chosen) {
  const auto top_k = static_cast<size_t>(task.config.top_k);
  const auto num_experts = static_cast<size_t>(task.config.num_experts);
  uint64_t taken[kMaxExperts / 64] = {};
  const auto take = [&](size_t expert) { taken[expert / 64] |= uint64_t{1} << (expert % 64); };
  for (size_t i = 0; i < count; ++i) take(static_cast<size_t>(chosen[i]));
  for (const bool masked : {false, true}) {
    for (size_t expert = 0; expert < num_experts && count < top_k; ++expert) {
      const bool is_masked = task.expert_mask != nullptr && task.expert_mask[expert] == 0;
      const bool is_taken = (taken[expert / 64] >> (expert % 64) & 1) != 0;
      if (is_masked != masked || is_taken) continue;
      take(expert);
      chosen[count++] = static_cast<int32_t>(expert);
    }
  }
}

// Adds one row to the loss sums. `scores` as from ScoreRow().
HWY_NOINLINE void AddRowLosses(const RouterConfig& config, const float* HWY_RESTRICT logits,
                               const float* HWY_RESTRICT scores, RowSums& sums,
                               int64_t* HWY_RESTRICT loss_sums) {
  using Layout = RouterLossLayout;
  const auto num_experts = static_cast<size_t>(config.num_experts);
  ++loss_sums[Layout::kTokens];
  const float log_sum_exp = sums.max + numerics::log(Denominator(config, logits, sums));
  const double bounded =
      HWY_MIN(HWY_MAX(double{log_sum_exp}, -Layout::kMaxLogSumExp), Layout::kMaxLogSumExp);
  const double squared = bounded * bounded;
  const double whole = std::floor(squared);
  loss_sums[Layout::kZWhole] += static_cast<int64_t>(whole);
  loss_sums[Layout::kZFraction] += static_cast<int64_t>((squared - whole) / Layout::kFractionUnit);

  float total = 1.0f;
  if (config.score_function != ScoreFunction::kSoftmax) {
    HWY_ALIGN float terms[kMaxExperts];
    const size_t leaves = std::bit_ceil(num_experts);
    for (size_t i = 0; i < leaves; ++i) {
      terms[i] = i < num_experts && scores[i] != kMinusInfinity ? scores[i] : 0.0f;
    }
    total = FoldedSum(terms, leaves);
  }
  if (total == 0.0f || !std::isfinite(total)) return;
  constexpr auto kUnits = static_cast<float>(1.0 / Layout::kProbabilityUnit);
  for (size_t i = 0; i < num_experts; ++i) {
    if (scores[i] == kMinusInfinity) continue;
    const float probability = HWY_MIN(HWY_MAX(scores[i] / total, 0.0f), 1.0f);
    loss_sums[Layout::kProbability + static_cast<int64_t>(i)] +=
        static_cast<int64_t>(std::nearbyint(probability * kUnits));
  }
}

// The way of most single rows: true when the row is done.
HWY_NOINLINE bool TryTokenKernel(const RouteTask& task, int64_t token) {
  HWY_ALIGN float widened[kMaxExperts];
  TokenTask one{&task.config, widened, task.expert_ids.row(token)};
  if (task.logits.dtype == DataType::kFloat32 && task.expert_mask == nullptr) {
    one.logits = task.logits.as<float>().row(token);
  } else {
    WidenRow(task, token, widened);
  }
  if (task.gate_weights.dtype == DataType::kFloat32) {
    one.gate_weights = task.gate_weights.as<float>().row(token);
    return task.token_kernel(one) != TokenOutcome::kNotRouted;
  }
  float weights[kMaxTopK];
  one.gate_weights = weights;
  if (task.token_kernel(one) == TokenOutcome::kNotRouted) return false;
  BFloat16* const narrow = task.gate_weights.as<BFloat16>().row(token);
  for (int32_t j = 0; j < task.config.top_k; ++j) narrow[j] = to_bfloat16(weights[j]);
  return true;
}

HWY_NOINLINE void RouteAnyRow(const RouteTask& task, int64_t token, RouteTally& tally) {
  const RouterConfig& config = task.config;
  const auto top_k = static_cast<size_t>(config.top_k);
  const size_t padded = PaddedSize(static_cast<size_t>(config.num_experts));
  int32_t* const ids = task.expert_ids.row(token);

  RowScratch scratch;
  RowView row;
  const bool with_losses = tally.loss_sums != nullptr;
  if (!ScoreRowForChoice(task, token, with_losses, scratch, row)) {
    ++tally.num_degenerate_rows;
    FillUp(task, 0, ids);
    for (size_t i = 0; i < top_k; ++i)
      set_element(task.gate_weights, token, static_cast<int64_t>(i), 0.0f);
    return;
  }

  HWY_ALIGN int32_t chosen[kMaxTopK];
  HWY_ALIGN float terms[kMaxTopK + kLanes];
  const size_t count = SelectRow(row.chosen_by, padded, top_k, chosen);
  if (count > 0) WeighChosen(config, row.logits, row.scores, chosen, count, row.sums, terms);
  if (count < top_k) FillUp(task, count, chosen);
  for (size_t i = 0; i < top_k; ++i) {
    ids[i] = chosen[i];
    set_element(task.gate_weights, token, static_cast<int64_t>(i), i < count ? terms[i] : 0.0f);
  }
  if (with_losses) AddRowLosses(config, row.logits, row.scores, row.sums, tally.loss_sums);
}

HWY_INLINE void RouteRow(const RouteTask& task, int64_t token, RouteTally& tally) {
  const bool is_usual =
      task.token_kernel != nullptr && task.bias == nullptr && tally.loss_sums == nullptr;
  if (is_usual && TryTokenKernel(task, token)) return;
  RouteAnyRow(task, token, tally);
}

// What follows the choice of tokens [begin, end): resident experts are preferred, the slots after
// the routed ones filled, all slots counted. Padding becomes -1.
HWY_INLINE void FinishTokens(const RouteTask& task, int64_t begin, int64_t end, RouteTally& tally) {
  if (task.residency != nullptr) PreferResidents(task, begin, end);
  const RouterConfig& config = task.config;
  const bool count = tally.tokens_per_expert != nullptr;
  if (task.token_mask == nullptr && config.num_shared_experts == 0 && !count) return;
  for (int64_t token = begin; token < end; ++token) {
    int32_t* const ids = task.expert_ids.row(token);
    if (task.token_mask != nullptr && task.token_mask[token] == 0) {
      for (int32_t slot = 0; slot < config.num_slots(); ++slot) {
        ids[slot] = -1;
        set_element(task.gate_weights, token, slot, 0.0f);
      }
      continue;
    }
    for (int32_t i = 0; i < config.num_shared_experts; ++i) {
      ids[config.top_k + i] = config.num_experts + i;
      set_element(task.gate_weights, token, config.top_k + i, config.shared_expert_weight);
    }
    if (!count) continue;
    for (int32_t slot = 0; slot < config.num_slots(); ++slot) {
      ++tally.tokens_per_expert[ids[slot]];
    }
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

// Routes one row by one warp under any configuration.
#pragma once

#include "cuda/expert_ids.cuh"
#include "cuda/intrinsics.cuh"
#include "cuda/row_candidates.cuh"
#include "cuda/row_groups.cuh"
#include "cuda/row_inputs.cuh"
#include "cuda/row_selection.cuh"
#include "switchyard/router_losses.h"

namespace switchyard::cuda {

/// Shared memory of the block that a warp adds its rows to; null where not wanted.
struct BlockTally {
  int* tokens_per_expert;         ///< [num_expert_ids]
  unsigned long long* loss_sums;  ///< [router_loss_sums_size(num_experts)]
  ChoiceNotes notes{};
};

/// The same memory for a choice of few.
__device__ inline CandidateScratch& candidates_in(SelectionScratch& memory) {
  static_assert(sizeof(CandidateScratch) <= sizeof(SelectionScratch) &&
                alignof(CandidateScratch) <= alignof(SelectionScratch));
  return reinterpret_cast<CandidateScratch&>(memory);
}

/// A warp's shared memory.
struct WarpScratch {
  SelectionScratch& selection;
  GroupScratch groups;
};

__device__ inline void store_choice(const RouteTask& task, const BlockTally& tally, int64_t token,
                                    int slot, int expert, float weight) {
  task.expert_ids.row(token)[slot] = expert;
  set_element(task.gate_weights, token, slot, weight);
  if (tally.tokens_per_expert != nullptr) atomicAdd(&tally.tokens_per_expert[expert], 1);
  tally.notes.add(token, slot, expert);
}

__device__ inline void store_nothing(const RouteTask& task, int64_t token, int slot) {
  task.expert_ids.row(token)[slot] = -1;
  set_element(task.gate_weights, token, slot, 0.0f);
}

__device__ inline void store_padding(const RouteTask& task, int64_t token) {
#pragma unroll 1
  for (int slot = lane_index(); slot < task.config.num_slots(); slot += kWarpSize) {
    store_nothing(task, token, slot);
  }
}

__device__ inline void store_shared_experts(const RouteTask& task, const BlockTally& tally,
                                            int64_t token) {
  const RouterConfig& config = task.config;
#pragma unroll 1
  for (int i = lane_index(); i < config.num_shared_experts; i += kWarpSize) {
    store_choice(task, tally, token, config.top_k + i, config.num_experts + i,
                 config.shared_expert_weight);
  }
}

/// The terms of the chosen experts' weights, and what they are divided by.
struct ChosenTerms {
  float first;   ///< of slot `lane`
  float second;  ///< of slot `lane` + 32
  float total;
};

/// Terms of the chosen experts' logits, -inf in slots without one; what is not finite has none.
/// `max` and `denominator` are the row's.
__device__ inline ChosenTerms terms_of_logits(const RouterConfig& config, float first, float second,
                                              float max, float denominator) {
  const bool has_first = is_finite(first);
  const bool has_second = is_finite(second);
  float total = 1.0f;
  if (config.score_function == ScoreFunction::kSoftmax) {
    float reference = max;
    if (config.renormalize) {
      const uint32_t first_key = ordered_key(first);
      const uint32_t second_key = ordered_key(second);
      reference = float_of_key(
          __reduce_max_sync(kAllLanes, first_key > second_key ? first_key : second_key));
    }
    first = has_first ? numerics::exp(first - reference) : 0.0f;
    second = has_second ? numerics::exp(second - reference) : 0.0f;
    total = denominator;
  } else {
    first = has_first ? score_of(config.score_function, first) : 0.0f;
    second = has_second ? score_of(config.score_function, second) : 0.0f;
  }
  if (config.renormalize) total = fold_lanes(first + second);
  return {first, second, total};
}

/// Terms of the `count` experts in scratch.sorted.
__device__ inline ChosenTerms terms_of_chosen(const RouteTask& task, int64_t token, int count,
                                              float max, float denominator,
                                              const SelectionScratch& scratch) {
  const int lane = lane_index();
  float first = minus_infinity();
  float second = minus_infinity();
  if (lane < count) first = element_at(task.logits, token, id_of(scratch.sorted[lane]));
  if (lane + kWarpSize < count) {
    second = element_at(task.logits, token, id_of(scratch.sorted[lane + kWarpSize]));
  }
  return terms_of_logits(task.config, first, second, max, denominator);
}

/// The weight of a slot, from its term.
__device__ inline float weight_of(const RouterConfig& config, float term, float total) {
  const bool divisible = total != 0.0f && is_finite(total);
  return divisible ? term / total * config.routed_scaling_factor : 0.0f;
}

/// Writes the routed slots from scratch.sorted.
__device__ inline void store_chosen(const RouteTask& task, const BlockTally& tally, int64_t token,
                                    int count, const ChosenTerms& terms,
                                    const SelectionScratch& scratch) {
  for (int slot = lane_index(); slot < count; slot += kWarpSize) {
    const float term = slot < kWarpSize ? terms.first : terms.second;
    store_choice(task, tally, token, slot, id_of(scratch.sorted[slot]),
                 weight_of(task.config, term, terms.total));
  }
}

/// Completes a row of `count` choices with the lowest ids not among them, enabled experts before
/// masked ones, at weight 0.
__device__ inline void fill_up(const RouteTask& task, const BlockTally& tally, int64_t token,
                               int count, const SelectionScratch& scratch) {
  const RouterConfig& config = task.config;
  int next = count;
  const int passes = task.expert_mask == nullptr ? 1 : 2;
  for (int pass = 0; pass < passes; ++pass) {
    for (int first = 0; first < config.num_experts && next < config.top_k; first += kWarpSize) {
      const int expert = first + lane_index();
      bool free = expert < config.num_experts;
      if (free && task.expert_mask != nullptr) {
        free = (task.expert_mask[expert] == 0) == (pass == 1);
      }
      for (int i = 0; free && i < count; ++i) free = id_of(scratch.sorted[i]) != expert;
      const unsigned hits = __ballot_sync(kAllLanes, free ? 1 : 0);
      const int slot = next + __popc(hits & lanes_before());
      if (free && slot < config.top_k) store_choice(task, tally, token, slot, expert, 0.0f);
      next += __popc(hits);
    }
  }
}

/// Adds a row with a finite logit to the loss sums. `scores` as from score_row(); `total` is what
/// turns them into probabilities.
template <int kPerLane>
__device__ void add_row_losses(float log_sum_exp, const float (&scores)[kPerLane], float total,
                               unsigned long long* sums) {
  using Layout = RouterLossLayout;
  const int lane = lane_index();
  if (lane == 0) {
    const auto limit = static_cast<float>(Layout::kMaxLogSumExp);
    const float high = log_sum_exp < limit ? log_sum_exp : limit;
    const double bounded = high > -limit ? high : -limit;
    const double squared = bounded * bounded;
    const double whole = floor(squared);
    atomicAdd(&sums[Layout::kTokens], 1ull);
    atomicAdd(&sums[Layout::kZWhole], static_cast<unsigned long long>(whole));
    atomicAdd(&sums[Layout::kZFraction],
              static_cast<unsigned long long>((squared - whole) / Layout::kFractionUnit));
  }
  if (total == 0.0f || !is_finite(total)) return;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (!is_finite(scores[i])) continue;
    const float share = scores[i] / total;
    const float bounded = share > 0.0f ? (share < 1.0f ? share : 1.0f) : 0.0f;
    const double units = static_cast<double>(bounded) / Layout::kProbabilityUnit;
    const int expert = RowLayout<kPerLane>::expert_of(i, lane);
    atomicAdd(&sums[Layout::kProbability + expert], static_cast<unsigned long long>(rint(units)));
  }
}

/// The keys that order a clean row where the choice is made on the logits.
template <int kPerLane>
__device__ void keys_of_logits(const float (&x)[kPerLane], uint32_t (&keys)[kPerLane]) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) keys[i] = ordered_key(x[i]);
}

/// The keys that order a row of scores, with their bias.
template <int kPerLane>
__device__ void keys_of_scores(const RouteTask& task, const float (&scores)[kPerLane],
                               uint32_t (&keys)[kPerLane]) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = RowLayout<kPerLane>::expert_of(i, lane_index());
    const float bias =
        task.bias != nullptr && expert < task.config.num_experts ? task.bias[expert] : 0.0f;
    keys[i] = ordered_key(scores[i] + bias);
  }
}

/// Routes one token's row. Returns whether it is degenerate: without a finite enabled logit.
template <int kPerLane>
__device__ bool route_row(const RouteTask& task, int64_t token, const BlockTally& tally,
                          WarpScratch& scratch) {
  const RouterConfig& config = task.config;
  float x[kPerLane];
  load_clean_row(task, token, x);
  const float max = row_max(x);
  if (max == minus_infinity()) {
    fill_up(task, tally, token, 0, scratch.selection);
    return true;
  }

  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  const bool with_losses = tally.loss_sums != nullptr;
  float denominator = 0.0f;
  if (with_losses || (softmax && !(config.renormalize && task.on_logits))) {
    denominator = row_denominator(x, max);
  }
  uint32_t keys[kPerLane];
  if (task.on_logits) keys_of_logits(x, keys);
  if (!task.on_logits || with_losses) score_row(task, max, denominator, x);
  if (with_losses) {
    const float total =
        softmax ? 1.0f
                : folded_row_sum<kPerLane>([&](int i) { return is_finite(x[i]) ? x[i] : 0.0f; });
    add_row_losses(max + numerics::log(denominator), x, total, tally.loss_sums);
  }
  if (!task.on_logits) keys_of_scores(task, x, keys);
  if (task.group_terms > 0) {
    limit_to_best_groups(task, scratch.groups, scratch.selection, keys);
  }

  const int count = select_best(RegisterKeys<kPerLane>{keys}, config.top_k, scratch.selection);
  if (count > 0) {
    const ChosenTerms terms =
        terms_of_chosen(task, token, count, max, denominator, scratch.selection);
    store_chosen(task, tally, token, count, terms, scratch.selection);
  }
  if (count < config.top_k) fill_up(task, tally, token, count, scratch.selection);
  return false;
}

/// Sigmoids in place of a usual row's logits, and in `ranked` what they are ranked by; -inf where
/// there is none.
template <int kPerLane>
__device__ void score_usual_row(const RouteTask& task, float (&x)[kPerLane],
                                float (&ranked)[kPerLane]) {
  const int first = RowWords<kPerLane>::first_expert();
  const int last = task.config.num_experts - 1;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) ranked[i] = 0.0f;
  if (task.bias != nullptr) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) ranked[i] = task.bias[min(first + i, last)];
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const bool has_score = x[i] > minus_infinity();
    x[i] = sigmoid(x[i]);
    const float sum = x[i] + ranked[i];
    ranked[i] = has_score && is_finite(sum) ? sum : minus_infinity();
  }
}

/// Routes a usual row in few steps. False, and nothing written, where it is not one: too few logits
/// are finite, or too many are equal or beside each other.
template <int kPerLane>
__device__ bool route_usual_row(const RouteTask& task, int64_t token,
                                const RowWords<kPerLane>& words, const BlockTally& tally,
                                CandidateScratch& scratch) {
  const RouterConfig& config = task.config;
  const int top_k = config.top_k;
  const int lane = lane_index();
  const bool has_bias = task.bias != nullptr;
  __syncwarp();  // the row before may still be read
  if (lane < kMaxFewTopK) scratch.terms[lane] = 0.0f;
  float x[kPerLane];
  widen_words(task, words, x);
  float ranked[kPerLane];
  if (task.on_logits) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) ranked[i] = x[i];
  } else {
    score_usual_row(task, x, ranked);
  }
  if (task.group_terms > 0) limit_to_best_lanes(task, scratch, ranked);
  const Candidates candidates = gather_candidates(ranked, top_k, x, has_bias, scratch);
  if (candidates.count == 0) return false;
  __syncwarp();

  const RankedCandidate mine = rank_candidate(candidates, scratch);
  const bool is_chosen = mine.is_mine && mine.place < top_k;
  float term = mine.value;
  if (has_bias && is_chosen) term = scratch.scores[mine.index];
  if (config.score_function == ScoreFunction::kSoftmax) term = mine.exponential;
  if (is_chosen) scratch.terms[mine.place] = term;
  __syncwarp();
  const float total = config.renormalize ? sum_of_terms(scratch, top_k) : 1.0f;
  if (is_chosen) {
    store_choice(task, tally, token, mine.place, mine.expert, weight_of(config, term, total));
  }
  return true;
}

}  // namespace switchyard::cuda

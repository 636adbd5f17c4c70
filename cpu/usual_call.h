// Whether a call to a router is a usual one in which nothing is refused, told at once: its checks
// one by one, with a message for each, would take longer than to route a few tokens.
#pragma once

#include <bit>
#include <cstdint>

#include "switchyard/router.h"

namespace switchyard::cpu {

/// Whether a view has `rows` rows, at least one, of `cols` elements. Branches that never go another
/// way cost less than to gather what they ask.
template <typename View>
bool has_rows(const View& view, int64_t rows, int64_t cols) {
  return view.rows == rows && view.cols == cols && view.row_stride >= cols && view.data != nullptr;
}

/// Whether a view is one of nothing or of `size` elements.
template <typename T>
bool is_empty_or_has(const VectorView<T>& view, int64_t size) {
  return view.size == 0 || (view.size == size && view.data != nullptr);
}

/// Whether a preference is not refused. Without NaN, what is 0 or more has no sign bit: -0 goes the
/// other way, as do negative numbers taken for unsigned ones.
inline bool is_usual_preference(const RouterConfig& config, const ResidencyPreference& residency) {
  const auto is_bound = [](float value) { return std::bit_cast<uint32_t>(value) <= 0x7f800000u; };
  return is_empty_or_has(residency.resident_experts, config.num_experts) &&
         is_bound(residency.bonus) && is_bound(residency.max_swap_loss) &&
         is_bound(residency.max_sacrificed_share) && residency.bonus_scale <= BonusScale::kSpread &&
         static_cast<uint32_t>(residency.num_protected) <= static_cast<uint32_t>(config.top_k);
}

/// Whether a call routes at least one token without masks, residents, losses and what only those
/// ask for, and nothing about it is refused.
inline bool is_batch_call(const RouterConfig& config, const RoutingInputs& inputs,
                          const RoutingResult& result) {
  const int64_t rows = inputs.logits.rows;
  const int64_t num_slots = config.num_slots();
  const int64_t not_wanted = inputs.token_mask.size | inputs.expert_mask.size |
                             inputs.residency.resident_experts.size | result.loss_sums.size |
                             result.sacrificed_mass.size;
  return not_wanted == 0 && rows > 0 && has_rows(inputs.logits, rows, config.num_experts) &&
         has_rows(result.expert_ids, rows, num_slots) &&
         has_rows(result.gate_weights, rows, num_slots) &&
         inputs.logits.dtype <= DataType::kBFloat16 &&
         result.gate_weights.dtype == DataType::kFloat32 &&
         is_empty_or_has(inputs.selection_bias, config.num_experts) &&
         is_empty_or_has(result.tokens_per_expert, config.num_expert_ids()) &&
         is_usual_preference(config, inputs.residency);
}

}  // namespace switchyard::cpu

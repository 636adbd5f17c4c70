// Lets resident experts take the place of others that a row has chosen, by one warp.
#pragma once

#include "cuda/intrinsics.cuh"
#include "cuda/row_router.cuh"

namespace switchyard::cuda {

/// A routed row's slots, two a lane, and those of them that may give way.
struct AbsentSlots {
  int first_id;   ///< of slot `lane`
  int second_id;  ///< of slot `lane` + 32
  uint64_t mask;  ///< bit s: slot s is not protected and its expert not resident
};

__device__ inline AbsentSlots find_absent_slots(const RouteTask& task, int64_t token) {
  const int lane = lane_index();
  const int32_t* const ids = task.expert_ids.row(token);
  const ResidencyPreference& residency = task.residency;
  AbsentSlots absent{-1, -1, 0};
  if (!residency.is_active()) return absent;
  const auto look_at = [&](int slot, int& id) {
    if (slot < task.config.top_k) id = ids[slot];
    const bool may_leave = slot < task.config.top_k && slot >= residency.num_protected &&
                           residency.resident_experts[id] == 0;
    return static_cast<uint64_t>(__ballot_sync(kAllLanes, may_leave ? 1 : 0));
  };
  absent.mask = look_at(lane, absent.first_id);
  absent.mask |= look_at(lane + kWarpSize, absent.second_id) << kWarpSize;
  return absent;
}

/// What lane `slot` mod 32 holds for a slot.
template <typename T>
__device__ T of_slot(int slot, T first, T second) {
  return __shfl_sync(kAllLanes, slot < kWarpSize ? first : second, slot % kWarpSize);
}

/// The greatest less the least score above -inf.
template <int kPerLane>
__device__ float spread_of(const uint32_t (&keys)[kPerLane]) {
  uint32_t greatest = 0;
  uint32_t least_inverted = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    greatest = keys[i] > greatest ? keys[i] : greatest;
    const uint32_t inverted = keys[i] > 0 ? ~keys[i] : 0;
    least_inverted = inverted > least_inverted ? inverted : least_inverted;
  }
  greatest = __reduce_max_sync(kAllLanes, greatest);
  least_inverted = __reduce_max_sync(kAllLanes, least_inverted);
  return float_of_key(greatest) - float_of_key(~least_inverted);
}

/// Takes the key of expert `id` out of the row: 0 is left. Returns it in every lane.
template <int kPerLane>
__device__ uint32_t take_key(int id, uint32_t (&keys)[kPerLane]) {
  uint32_t taken = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (RowLayout<kPerLane>::expert_of(i, lane_index()) == id) {
      taken = keys[i];
      keys[i] = 0;
    }
  }
  return __reduce_max_sync(kAllLanes, taken);
}

/// What an expert adds to the mass of a choice, in units of the row's denominator; 0 for none.
__device__ inline float mass_of(const RouteTask& task, int64_t token, int id, float max) {
  if (id < 0) return 0.0f;
  const float logit = element_at(task.logits, token, id);
  if (task.config.score_function == ScoreFunction::kSoftmax) {
    return numerics::exp_or_zero(logit - max);
  }
  return score_of(task.config.score_function, logit);
}

__device__ inline float limit_of(float factor, float amount) {
  return factor > FLT_MAX ? factor : factor * amount;
}

/// How many pairs change places, and what that costs in units of the denominator.
struct Swaps {
  int count;
  float loss;
};

/// `entrants` are in scratch.sorted; the keys of the slots are two a lane.
template <typename Denominator>
__device__ Swaps count_swaps(const RouteTask& task, int64_t token, const AbsentSlots& absent,
                             uint32_t first_key, uint32_t second_key, int num_pairs, float bonus,
                             float max, const Denominator& denominator,
                             const SelectionScratch& scratch) {
  const ResidencyPreference& residency = task.residency;
  const bool softmax = task.config.score_function == ScoreFunction::kSoftmax;
  const float first_mass = mass_of(task, token, absent.first_id, max);
  const float second_mass = mass_of(task, token, absent.second_id, max);
  const float share_limit =
      limit_of(residency.max_sacrificed_share, fold_lanes(first_mass + second_mass));
  // No probability is above 1, so a larger bound needs no denominator.
  const bool is_free = softmax && residency.max_swap_loss >= 1.0f;
  const float swap_limit =
      limit_of(residency.max_swap_loss, softmax && !is_free ? denominator() : 1.0f);
  Swaps swaps{0, 0.0f};
  uint64_t left = absent.mask;
  for (; swaps.count < num_pairs; ++swaps.count) {
    const int slot = 63 - __clzll(static_cast<long long>(left));
    left &= ~(uint64_t{1} << slot);
    const int leaving = of_slot(slot, absent.first_id, absent.second_id);
    const float rival = float_of_key(of_slot(slot, first_key, second_key));
    const int entrant = id_of(scratch.sorted[swaps.count]);
    const float lifted = float_of_key(key_of(scratch.sorted[swaps.count])) + bonus;
    if (!(lifted > rival || (lifted == rival && entrant < leaving))) break;
    const float difference =
        of_slot(slot, first_mass, second_mass) - mass_of(task, token, entrant, max);
    const float loss = difference > 0.0f ? difference : 0.0f;
    if (!(loss <= swap_limit) || !(swaps.loss + loss <= share_limit)) break;
    swaps.loss += loss;
  }
  return swaps;
}

/// Leaves in scratch.sorted the choices that stay and then the first `count` entrants, which are
/// there. Returns the slots that gave way.
__device__ inline uint64_t exchange_choices(const AbsentSlots& absent, int top_k, int count,
                                            SelectionScratch& scratch) {
  uint64_t leaving = 0;
  uint64_t left = absent.mask;
  for (int i = 0; i < count; ++i) {
    const uint64_t bit = uint64_t{1} << (63 - __clzll(static_cast<long long>(left)));
    leaving |= bit;
    left &= ~bit;
  }
  const auto keep = [&](int slot, int id) {
    if (slot >= top_k || (leaving >> slot & 1) != 0) return;
    const uint64_t before = ~leaving & ((uint64_t{1} << slot) - 1);
    scratch.candidates[__popcll(before)] = candidate_of(0, id);
  };
  const int lane = lane_index();
  keep(lane, absent.first_id);
  keep(lane + kWarpSize, absent.second_id);
  for (int i = lane; i < count; i += kWarpSize) {
    scratch.candidates[top_k - count + i] = scratch.sorted[i];
  }
  __syncwarp();
  for (int i = lane; i < top_k; i += kWarpSize) scratch.sorted[i] = scratch.candidates[i];
  __syncwarp();
  return leaving;
}

/// For a routed row. Returns the mass that it gave up, in every lane.
template <int kPerLane>
__device__ float prefer_residents_in_row(const RouteTask& task, int64_t token,
                                         const AbsentSlots& absent,
                                         unsigned long long* tokens_per_expert,
                                         WarpScratch& scratch) {
  const RouterConfig& config = task.config;
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  const int lane = lane_index();
  float x[kPerLane];
  load_clean_row(task, token, x);
  const float max = row_max(x);
  if (max == minus_infinity()) return 0.0f;

  float whole = 0.0f;  // not computed yet
  if (softmax && !task.on_logits) whole = row_denominator(x, max);
  const auto denominator = [&] {
    if (whole == 0.0f) whole = row_denominator(x, max);
    return whole;
  };
  uint32_t keys[kPerLane];
  if (task.on_logits) {
    keys_of_logits(x, keys);
  } else {
    score_row(task, max, whole, x);
    keys_of_scores(task, x, keys);
  }
  if (task.group_terms > 0) {
    limit_to_best_groups(task, scratch.groups, scratch.selection, keys);
  }
  float bonus = task.residency.bonus;
  if (task.residency.bonus_scale == BonusScale::kSpread) bonus = limit_of(bonus, spread_of(keys));

  uint32_t first_key = 0;
  uint32_t second_key = 0;
  for (int slot = 0; slot < config.top_k; ++slot) {
    const uint32_t key = take_key(of_slot(slot, absent.first_id, absent.second_id), keys);
    if (slot == lane) first_key = key;
    if (slot == lane + kWarpSize) second_key = key;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = RowLayout<kPerLane>::expert_of(i, lane);
    const bool is_resident =
        expert < config.num_experts && task.residency.resident_experts[expert] != 0;
    if (!is_resident) keys[i] = 0;
  }
  const int num_pairs =
      select_best(RegisterKeys<kPerLane>{keys}, __popcll(absent.mask), scratch.selection);
  if (num_pairs == 0) return 0.0f;
  const Swaps swaps = count_swaps(task, token, absent, first_key, second_key, num_pairs, bonus, max,
                                  denominator, scratch.selection);
  if (swaps.count == 0) return 0.0f;

  if (tokens_per_expert != nullptr) {
    for (int i = lane; i < swaps.count; i += kWarpSize) {
      atomicAdd(&tokens_per_expert[id_of(scratch.selection.sorted[i])], 1ull);
    }
  }
  __syncwarp();
  const uint64_t leaving = exchange_choices(absent, config.top_k, swaps.count, scratch.selection);
  if (tokens_per_expert != nullptr) {
    const auto leave = [&](int slot, int id) {
      if ((leaving >> slot & 1) != 0) atomicAdd(&tokens_per_expert[id], ~0ull);
    };
    leave(lane, absent.first_id);
    leave(lane + kWarpSize, absent.second_id);
  }
  if (softmax && (!config.renormalize || task.sacrificed_mass != nullptr)) whole = denominator();
  const ChosenTerms terms =
      terms_of_chosen(task, token, config.top_k, max, whole, scratch.selection);
  store_chosen(task, {}, token, config.top_k, terms, scratch.selection);
  return softmax && task.sacrificed_mass != nullptr ? swaps.loss / whole : swaps.loss;
}

}  // namespace switchyard::cuda

#include "stats/placement_search.h"

#include <algorithm>

namespace switchyard::stats {
namespace {

/// Gains below this share are rounding.
constexpr double kLeastGain = 1e-9;

}  // namespace

/// Time of the slowest of an expert's other holders once its copy on `rank` is gone.
double PlacementSearch::time_without(int32_t expert, int32_t rank, int32_t slowest) const {
  double time = 0.0;
  const double more = state_.share(expert, -1) - state_.share(expert);
  for (const int32_t holder : state_.holders(expert)) {
    if (holder == rank || holder == slowest) continue;
    time = std::max(time, (state_.load(holder) + more) / state_.speed(holder));
  }
  return time;
}

/// Keeps the step where it is better for what it moves.
/// @param time  of the slowest rank that it makes slower, the slowest itself included.
void PlacementSearch::offer(Step& best, double limit, double time, int32_t moves,
                            const Step& step) {
  const double gain = limit - time;
  if (gain <= limit * kLeastGain) return;
  // Steps that move nothing new, or undo a move, are worth more than any that does.
  const double price = moves > 0 ? moves : 0.25;
  if (gain / price <= best.score) return;
  best = step;
  best.score = gain / price;
}

void PlacementSearch::consider_swaps(int32_t slowest, Step& best) const {
  const double limit = state_.time_of(slowest);
  const int32_t per_rank = state_.problem().slots_per_rank;
  const double from_speed = state_.speed(slowest);
  for (int32_t rank = 0; rank < state_.problem().num_ranks(); ++rank) {
    if (rank == slowest) continue;
    const double to_speed = state_.speed(rank);
    const double even = (state_.load(slowest) + state_.load(rank)) / (from_speed + to_speed);
    if ((limit - even) * 4.0 <= best.score) continue;  // even if it cost nothing
    for (int32_t slot = slowest * per_rank; slot < (slowest + 1) * per_rank; ++slot) {
      const int32_t given = state_.expert_in(slot);
      if (given < 0 || !state_.may_hold(rank, given)) continue;
      for (int32_t other = rank * per_rank; other < (rank + 1) * per_rank; ++other) {
        const int32_t taken = state_.expert_in(other);
        if (taken >= 0 && !state_.may_hold(slowest, taken)) continue;
        const double moved = state_.share(given) - (taken < 0 ? 0.0 : state_.share(taken));
        if (moved <= 0.0) continue;
        const double time = std::max((state_.load(slowest) - moved) / from_speed,
                                     (state_.load(rank) + moved) / to_speed);
        offer(best, limit, time,
              state_.cost(slowest, given, taken) + state_.cost(rank, taken, given),
              {.slot = slot, .other = other});
      }
    }
  }
}

/// A slot of the slowest rank goes from an expert with other copies to a lighter one, or to none.
void PlacementSearch::consider_replacements(int32_t slowest, Step& best) const {
  const double limit = state_.time_of(slowest);
  const int32_t per_rank = state_.problem().slots_per_rank;
  for (int32_t slot = slowest * per_rank; slot < (slowest + 1) * per_rank; ++slot) {
    const int32_t removed = state_.expert_in(slot);
    if (removed < 0 || state_.holders(removed).size() < 2) continue;
    const double others = time_without(removed, slowest, slowest);
    if (others >= limit) continue;
    const double without = (state_.load(slowest) - state_.share(removed)) / state_.speed(slowest);
    if (state_.problem().may_drop_copies) {
      offer(best, limit, std::max(others, without), state_.cost(slowest, removed, -1),
            {.slot = slot});
    }
    for (int32_t added = 0; added < state_.problem().num_experts(); ++added) {
      if (!state_.may_hold(slowest, added)) continue;
      const double load = state_.load(slowest) - state_.share(removed) + state_.share(added, 1);
      const double time = std::max(others, load / state_.speed(slowest));
      offer(best, limit, time, state_.cost(slowest, removed, added),
            {.slot = slot, .expert = added});
    }
  }
}

/// An expert of the slowest rank gets another copy elsewhere, in the slot of one that has others.
void PlacementSearch::consider_copies(int32_t slowest, Step& best) const {
  const double limit = state_.time_of(slowest);
  const int32_t per_rank = state_.problem().slots_per_rank;
  const double speed = state_.speed(slowest);
  std::vector<int32_t> copied;
  for (int32_t slot = slowest * per_rank; slot < (slowest + 1) * per_rank; ++slot) {
    if (state_.expert_in(slot) >= 0) copied.push_back(state_.expert_in(slot));
  }
  for (int32_t slot = 0; slot < static_cast<int32_t>(state_.slots().size()); ++slot) {
    const int32_t rank = state_.rank_of(slot);
    const int32_t removed = state_.expert_in(slot);
    if (rank == slowest) continue;
    double others = 0.0;
    double freed = 0.0;
    double added_back = 0.0;  // where the slowest holds what loses a copy
    if (removed >= 0) {
      if (state_.holders(removed).size() < 2) continue;
      others = time_without(removed, rank, slowest);
      freed = state_.share(removed);
      if (state_.holds(slowest, removed)) added_back = state_.share(removed, -1) - freed;
    }
    if (others >= limit) continue;
    for (const int32_t expert : copied) {
      if (expert == removed || !state_.may_hold(rank, expert)) continue;
      const double added = state_.share(expert, 1);
      const double here = state_.load(slowest) - state_.share(expert) + added + added_back;
      const double there = state_.load(rank) - freed + added;
      const double time = std::max({others, here / speed, there / state_.speed(rank)});
      offer(best, limit, time, state_.cost(rank, removed, expert),
            {.slot = slot, .expert = expert});
    }
  }
}

bool PlacementSearch::step() {
  const int32_t slowest = state_.slowest_rank();
  Step best;
  consider_copies(slowest, best);
  consider_replacements(slowest, best);
  consider_swaps(slowest, best);
  if (best.slot < 0) return false;
  if (best.other < 0) {
    state_.change(best.slot, best.expert);
  } else {
    state_.exchange(best.slot, best.other);
  }
  return true;
}

}  // namespace switchyard::stats

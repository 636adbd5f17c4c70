#include "stats/placement_target_search.h"

#include <algorithm>

#include "stats/index_of.h"

namespace switchyard::stats {
namespace {

/// Of the target: what a rank above it counts for, however little it is above.
constexpr double kPerRank = 0.1;
/// Of the target: gains below are rounding.
constexpr double kLeastGain = 1e-9;
/// Steps that move nothing new, or undo a move, are worth more than any that does.
constexpr double kRateOfFreeMoves = 4.0;
/// Of a search, far more than it takes.
constexpr std::size_t kStepsPerSlot = 4;

}  // namespace

TargetSearch::TargetSearch(const LayerProblem& problem, std::span<const int32_t> slot_to_expert,
                           double target)
    : state_(problem, slot_to_expert),
      target_(target),
      per_rank_(kPerRank * target),
      now_(problem.speeds.size()),
      touched_(problem.speeds.size()),
      experts_(problem.loads.size()) {
  for (const double speed : problem.speeds) {
    limits_.push_back(target * speed * (1.0 + kLeastGain));
  }
}

bool TargetSearch::run(int64_t most_moved) {
  double last = total_excess();
  for (std::size_t left = kStepsPerSlot * state_.slots().size(); left > 0; --left) {
    if (state_.moved() > most_moved) return false;
    const int32_t slowest = state_.slowest_rank();
    if (state_.time_of(slowest) <= target_) return true;
    rate_experts();
    Step best;
    consider_copies(slowest, best);
    consider_replacements(slowest, best);
    consider_swaps(slowest, best);
    if (best.slot < 0) return false;
    touched_[index_of(state_.rank_of(best.slot))] = 1;
    if (best.other < 0) {
      state_.change(best.slot, best.expert);
    } else {
      touched_[index_of(state_.rank_of(best.other))] = 1;
      state_.exchange(best.slot, best.other);
    }
    // What a step is worth is estimated where experts share several ranks.
    const double total = total_excess();
    if (total >= last) return false;
    last = total;
  }
  return false;
}

double TargetSearch::excess_with(int32_t rank, double more) const {
  const double load = state_.load(rank) + more;
  if (load <= limits_[index_of(rank)]) return 0.0;
  return load / state_.speed(rank) - target_ + per_rank_;
}

double TargetSearch::total_excess() const {
  double total = 0.0;
  for (int32_t rank = 0; rank < state_.problem().num_ranks(); ++rank) {
    total += excess_with(rank, 0.0);
  }
  return total;
}

/// What a copy more or less of each expert does to the ranks that hold it now.
void TargetSearch::rate_experts() {
  for (int32_t rank = 0; rank < state_.problem().num_ranks(); ++rank) {
    now_[index_of(rank)] = excess_with(rank, 0.0);
  }
  for (int32_t expert = 0; expert < state_.problem().num_experts(); ++expert) {
    Rating& rating = experts_[index_of(expert)];
    const auto copies = static_cast<double>(state_.holders(expert).size());
    const double load = state_.problem().loads[index_of(expert)];
    rating = {.share = load / copies, .share_of_more = load / (copies + 1.0)};
    if (copies > 1.0) rating.share_of_fewer = load / (copies - 1.0);
    const double less = rating.share_of_more - rating.share;
    const double more = rating.share_of_fewer - rating.share;
    for (const int32_t rank : state_.holders(expert)) {
      const double now = now_[index_of(rank)];
      if (now > 0.0) rating.relief += now - excess_with(rank, less);
      if (copies > 1.0) rating.harm += excess_with(rank, more) - now;
    }
  }
}

/// The most that a gain on the rank can score by changing one of its slots.
double TargetSearch::best_rate(int32_t rank) const {
  return touched_[index_of(rank)] != 0 ? kRateOfFreeMoves : 1.0;
}

/// Harm to an expert's other ranks when its copy on `rank` goes.
double TargetSearch::harm_elsewhere(int32_t expert, int32_t rank) const {
  const Rating& rating = experts_[index_of(expert)];
  const double more = rating.share_of_fewer - rating.share;
  return rating.harm - (excess_with(rank, more) - now_[index_of(rank)]);
}

void TargetSearch::offer(Step& best, double gain, int32_t moves, const Step& step) const {
  if (gain <= target_ * kLeastGain) return;
  const double score = (moves > 0 ? gain / moves : gain * kRateOfFreeMoves);
  if (score <= best.score) return;
  best = step;
  best.score = score;
}

/// An expert of the slowest rank gets another copy elsewhere, in the slot of one that has others.
void TargetSearch::consider_copies(int32_t slowest, Step& best) const {
  const int32_t per_rank = state_.problem().slots_per_rank;
  for (int32_t slot = 0; slot < static_cast<int32_t>(state_.slots().size()); ++slot) {
    const int32_t rank = state_.rank_of(slot);
    const int32_t removed = state_.expert_in(slot);
    if (rank == slowest || (removed >= 0 && state_.holders(removed).size() < 2)) continue;
    const double freed = removed < 0 ? 0.0 : experts_[index_of(removed)].share;
    const double harm = removed < 0 ? 0.0 : harm_elsewhere(removed, rank);
    for (int32_t from = slowest * per_rank; from < (slowest + 1) * per_rank; ++from) {
      const int32_t expert = state_.expert_in(from);
      if (expert < 0 || expert == removed || !state_.may_hold(rank, expert)) continue;
      const double most = experts_[index_of(expert)].relief + now_[index_of(rank)] - harm;
      if (most * best_rate(rank) <= best.score) continue;
      const double there = excess_with(rank, experts_[index_of(expert)].share_of_more - freed);
      offer(best, most - there, state_.cost(rank, removed, expert),
            {.slot = slot, .expert = expert});
    }
  }
}

/// A slot of the slowest rank goes from an expert with other copies to another one.
void TargetSearch::consider_replacements(int32_t slowest, Step& best) const {
  const int32_t per_rank = state_.problem().slots_per_rank;
  const double now = now_[index_of(slowest)];
  for (int32_t slot = slowest * per_rank; slot < (slowest + 1) * per_rank; ++slot) {
    const int32_t removed = state_.expert_in(slot);
    if (removed < 0 || state_.holders(removed).size() < 2) continue;
    const double freed = experts_[index_of(removed)].share;
    const double harm = harm_elsewhere(removed, slowest);
    if (state_.problem().may_drop_copies) {
      offer(best, now - excess_with(slowest, -freed) - harm, state_.cost(slowest, removed, -1),
            {.slot = slot});
    }
    for (int32_t added = 0; added < state_.problem().num_experts(); ++added) {
      const double most = experts_[index_of(added)].relief + now - harm;
      if (most * best_rate(slowest) <= best.score || !state_.may_hold(slowest, added)) continue;
      const double here = excess_with(slowest, experts_[index_of(added)].share_of_more - freed);
      offer(best, most - here, state_.cost(slowest, removed, added),
            {.slot = slot, .expert = added});
    }
  }
}

void TargetSearch::consider_swaps(int32_t slowest, Step& best) const {
  const int32_t per_rank = state_.problem().slots_per_rank;
  for (int32_t rank = 0; rank < state_.problem().num_ranks(); ++rank) {
    if (rank == slowest) continue;
    const double now = now_[index_of(slowest)] + now_[index_of(rank)];
    // Two slots move where neither rank has moved any.
    const bool touched = touched_[index_of(slowest)] != 0 || touched_[index_of(rank)] != 0;
    const double rate = touched ? kRateOfFreeMoves : 0.5;
    if (now * rate <= best.score) continue;
    for (int32_t slot = slowest * per_rank; slot < (slowest + 1) * per_rank; ++slot) {
      const int32_t given = state_.expert_in(slot);
      if (given < 0 || !state_.may_hold(rank, given)) continue;
      for (int32_t other = rank * per_rank; other < (rank + 1) * per_rank; ++other) {
        const int32_t taken = state_.expert_in(other);
        const double moved =
            experts_[index_of(given)].share - (taken < 0 ? 0.0 : experts_[index_of(taken)].share);
        if (moved <= 0.0 || (taken >= 0 && !state_.may_hold(slowest, taken))) continue;
        const double gain = now - excess_with(slowest, -moved) - excess_with(rank, moved);
        if (gain * rate <= best.score) continue;
        offer(best, gain, state_.cost(slowest, given, taken) + state_.cost(rank, taken, given),
              {.slot = slot, .other = other});
      }
    }
  }
}

}  // namespace switchyard::stats

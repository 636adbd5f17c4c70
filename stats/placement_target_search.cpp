#include "stats/placement_target_search.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "stats/index_of.h"

namespace switchyard::stats {
namespace {

/// Of the target: what a rank above it counts for, however little it is above.
constexpr double kPerRank = 0.2;
/// Of the target: gains below are rounding.
constexpr double kLeastGain = 1e-9;
/// What a gain counts by the slots that move, -2 to 2. Steps that move nothing new, or undo a move,
/// are worth more than any that does.
constexpr double kRates[] = {4.0, 4.0, 4.0, 1.0, 0.5};

double rate_of(int32_t moves) { return kRates[moves + 2]; }
/// Of a search, far more than it takes.
constexpr std::size_t kStepsPerSlot = 4;

}  // namespace

TargetSearch::TargetSearch(const LayerProblem& problem, std::span<const int32_t> slot_to_expert,
                           double target)
    : state_(problem, slot_to_expert),
      time_per_load_(problem.speeds.size()),
      limits_(problem.speeds.size()),
      now_(problem.speeds.size()),
      experts_(problem.loads.size()),
      rank_marked_(problem.speeds.size()),
      expert_rated_(problem.loads.size()),
      home_of_(problem.speeds.size()) {
  for (std::size_t rank = 0; rank < problem.speeds.size(); ++rank) {
    time_per_load_[rank] = 1.0 / problem.speeds[rank];
  }
  for (int32_t expert = 0; expert < problem.num_experts(); ++expert) {
    first_home_.push_back(std::ssize(homes_));
    const std::span<const int32_t> holders = state_.holders(expert);
    homes_.insert(homes_.end(), holders.begin(), holders.end());
  }
  first_home_.push_back(std::ssize(homes_));
  aim_at(target);
}

void TargetSearch::aim_at(double target) {
  target_ = target;
  per_rank_ = kPerRank * target;
  for (int32_t rank = 0; rank < state_.problem().num_ranks(); ++rank) {
    limits_[index_of(rank)] = target * state_.speed(rank) * (1.0 + kLeastGain);
    mark(rank);
  }
}

bool TargetSearch::run(int64_t most_moved, Chance* chance) {
  double last = std::numeric_limits<double>::infinity();
  for (std::size_t left = kStepsPerSlot * state_.slots().size(); left > 0; --left) {
    if (state_.moved() > most_moved) return false;
    rate_marked();
    const int32_t rank = rank_above(chance);
    if (rank < 0) return true;
    // What a step is worth is estimated where experts share several ranks.
    const double total = std::accumulate(now_.begin(), now_.end(), 0.0);
    if (total >= last) return false;
    const auto most_moves = static_cast<int32_t>(most_moved - state_.moved());
    if (!step(rank, {.most_moves = most_moves, .chance = chance})) return false;
    last = total;
  }
  return false;
}

double TargetSearch::total_excess() {
  rate_marked();
  return std::accumulate(now_.begin(), now_.end(), 0.0);
}

/// The slowest rank, or any above the target; -1 where there is none.
int32_t TargetSearch::rank_above(Chance* chance) {
  above_.clear();
  int32_t slowest = -1;
  for (int32_t rank = 0; rank < state_.problem().num_ranks(); ++rank) {
    if (now_[index_of(rank)] <= 0.0) continue;
    above_.push_back(rank);
    if (slowest < 0 || now_[index_of(rank)] > now_[index_of(slowest)]) slowest = rank;
  }
  if (chance == nullptr || above_.empty()) return slowest;
  return above_[index_of(chance->below(std::ssize(above_)))];
}

bool TargetSearch::step(int32_t rank, Offers offers) {
  ++num_steps_;
  mark_homes(rank);
  consider_copies(rank, offers);
  consider_replacements(rank, offers);
  consider_swaps(rank, offers);
  const Step& best = offers.best;
  if (best.slot < 0) return false;
  if (best.other < 0) {
    change(best.slot, best.expert);
  } else {
    const int32_t given = state_.expert_in(best.slot);
    const int32_t taken = state_.expert_in(best.other);
    // An expert may be nowhere for a moment: its load is on no rank then, and comes back.
    change(best.slot, taken);
    change(best.other, given);
  }
  return true;
}

void TargetSearch::change(int32_t slot, int32_t expert) {
  mark_around(slot);
  state_.change(slot, expert);
  mark_around(slot);
}

void TargetSearch::undo_to(std::size_t num_changes) {
  while (state_.changes().size() > num_changes) {
    const int32_t slot = state_.changes().back().slot;
    mark_around(slot);
    state_.undo();
    mark_around(slot);
  }
}

void TargetSearch::mark(int32_t rank) {
  if (rank_marked_[index_of(rank)] != 0) return;
  rank_marked_[index_of(rank)] = 1;
  marked_.push_back(rank);
}

/// All ranks whose load depends on what is in the slot.
void TargetSearch::mark_around(int32_t slot) {
  mark(state_.rank_of(slot));
  const int32_t expert = state_.expert_in(slot);
  if (expert < 0) return;
  for (const int32_t holder : state_.holders(expert)) mark(holder);
}

void TargetSearch::rate_marked() {
  for (const int32_t rank : marked_) now_[index_of(rank)] = excess_with(rank, 0.0);
  const int32_t per_rank = state_.problem().slots_per_rank;
  for (const int32_t rank : marked_) {
    rank_marked_[index_of(rank)] = 0;
    for (int32_t slot = rank * per_rank; slot < (rank + 1) * per_rank; ++slot) {
      const int32_t expert = state_.expert_in(slot);
      if (expert < 0 || expert_rated_[index_of(expert)] != 0) continue;
      expert_rated_[index_of(expert)] = 1;
      rated_.push_back(expert);
      rate(expert);
    }
  }
  marked_.clear();
  for (const int32_t expert : rated_) expert_rated_[index_of(expert)] = 0;
  rated_.clear();
}

/// What a copy more or less of an expert does to the ranks that hold it now.
void TargetSearch::rate(int32_t expert) {
  const std::span<const int32_t> holders = state_.holders(expert);
  const double load = state_.problem().loads[index_of(expert)];
  Rating rating{.copies = static_cast<int32_t>(holders.size())};
  rating.share = load / rating.copies;
  rating.share_of_more = load / (rating.copies + 1);
  if (rating.copies > 1) rating.share_of_fewer = load / (rating.copies - 1);
  const double less = rating.share_of_more - rating.share;
  const double more = rating.share_of_fewer - rating.share;
  for (const int32_t rank : holders) {
    const double now = now_[index_of(rank)];
    if (now > 0.0) rating.relief += now - excess_with(rank, less);
    if (rating.copies > 1) rating.harm += excess_with(rank, more) - now;
  }
  experts_[index_of(expert)] = rating;
}

/// The fewest moves that a change of one of the rank's slots can be.
int32_t TargetSearch::fewest_moves(int32_t rank) const {
  return (state_.moved_on(rank) > 0 ? 0 : 1) - home_of_[index_of(rank)];
}

/// Marks the ranks that held one of the rank's experts, and the rank where it could get one back.
void TargetSearch::mark_homes(int32_t relieved) {
  std::fill(home_of_.begin(), home_of_.end(), uint8_t{0});
  home_of_[index_of(relieved)] = state_.moved_on(relieved) > 0 ? 1 : 0;
  const int32_t per_rank = state_.problem().slots_per_rank;
  for (int32_t slot = relieved * per_rank; slot < (relieved + 1) * per_rank; ++slot) {
    const int32_t expert = state_.expert_in(slot);
    if (expert < 0) continue;
    const auto first = homes_.begin() + first_home_[index_of(expert)];
    const auto last = homes_.begin() + first_home_[index_of(expert) + 1];
    for (auto home = first; home != last; ++home) {
      if (!state_.holds(*home, expert)) home_of_[index_of(*home)] = 1;
    }
  }
}

/// Harm to an expert's other ranks when its copy on `rank` goes.
double TargetSearch::harm_elsewhere(int32_t expert, int32_t rank) const {
  const Rating& rating = experts_[index_of(expert)];
  if (rating.harm <= 0.0) return 0.0;
  const double more = rating.share_of_fewer - rating.share;
  return rating.harm - (excess_with(rank, more) - now_[index_of(rank)]);
}

void TargetSearch::offer(Offers& offers, double gain, int32_t moves, const Step& step) const {
  if (gain <= target_ * kLeastGain || moves > offers.most_moves) return;
  const double score = gain * rate_of(moves);
  if (score <= offers.score) return;
  offers.best = step;
  offers.score = score;
}

/// An expert of the rank gets another copy elsewhere, in the slot of one that has others.
void TargetSearch::consider_copies(int32_t relieved, Offers& offers) {
  const int32_t per_rank = state_.problem().slots_per_rank;
  const int32_t num_ranks = state_.problem().num_ranks();
  // Of equal ones the first is taken.
  const auto first =
      static_cast<int32_t>(offers.chance == nullptr ? 0 : offers.chance->below(num_ranks));
  double relief = 0.0;
  for (int32_t slot = relieved * per_rank; slot < (relieved + 1) * per_rank; ++slot) {
    const int32_t expert = state_.expert_in(slot);
    if (expert >= 0) relief = std::max(relief, experts_[index_of(expert)].relief);
  }
  for (int32_t i = 0; i < num_ranks; ++i) {
    const int32_t rank = first + i < num_ranks ? first + i : first + i - num_ranks;
    const double now = now_[index_of(rank)];
    if (rank == relieved) continue;
    const int32_t fewest = fewest_moves(rank);
    if (fewest > offers.most_moves) continue;
    if ((relief + now) * rate_of(fewest) <= offers.score) continue;
    list_copied(relieved, rank);
    for (int32_t slot = rank * per_rank; slot < (rank + 1) * per_rank; ++slot) {
      const int32_t removed = state_.expert_in(slot);
      if (removed >= 0 && experts_[index_of(removed)].copies < 2) continue;
      const int32_t losing = state_.cost_of_losing(rank, removed);
      if ((relief + now) * rate_of(losing - home_of_[index_of(rank)]) <= offers.score) continue;
      const double freed = removed < 0 ? 0.0 : experts_[index_of(removed)].share;
      const double most_here = now - (removed < 0 ? 0.0 : harm_elsewhere(removed, rank));
      for (const Copied& copied : copied_) {
        const Rating& rating = experts_[index_of(copied.expert)];
        const double most = rating.relief + most_here;
        const int32_t moves = losing + copied.moves;
        if (most * rate_of(moves) <= offers.score) continue;
        offer(offers, most - excess_with(rank, rating.share_of_more - freed), moves,
              {.slot = slot, .expert = copied.expert});
      }
    }
  }
}

/// Experts of the one rank that the other may hold too.
void TargetSearch::list_copied(int32_t relieved, int32_t rank) {
  const int32_t per_rank = state_.problem().slots_per_rank;
  copied_.clear();
  for (int32_t slot = relieved * per_rank; slot < (relieved + 1) * per_rank; ++slot) {
    const int32_t expert = state_.expert_in(slot);
    if (expert < 0 || !state_.may_hold(rank, expert)) continue;
    copied_.push_back({expert, state_.cost_of_getting(rank, expert)});
  }
}

/// A slot of the rank goes from an expert with other copies to another one.
void TargetSearch::consider_replacements(int32_t relieved, Offers& offers) const {
  const int32_t per_rank = state_.problem().slots_per_rank;
  const double now = now_[index_of(relieved)];
  const double rate = rate_of(fewest_moves(relieved));
  for (int32_t slot = relieved * per_rank; slot < (relieved + 1) * per_rank; ++slot) {
    const int32_t removed = state_.expert_in(slot);
    if (removed < 0 || experts_[index_of(removed)].copies < 2) continue;
    const double freed = experts_[index_of(removed)].share;
    const double harm = harm_elsewhere(removed, relieved);
    if (state_.problem().may_drop_copies) {
      offer(offers, now - excess_with(relieved, -freed) - harm, state_.cost(relieved, removed, -1),
            {.slot = slot});
    }
    for (int32_t added = 0; added < state_.problem().num_experts(); ++added) {
      const double most = experts_[index_of(added)].relief + now - harm;
      if (most * rate <= offers.score || !state_.may_hold(relieved, added)) continue;
      const int32_t moves = state_.cost(relieved, removed, added);
      if (most * rate_of(moves) <= offers.score) continue;
      const double here = excess_with(relieved, experts_[index_of(added)].share_of_more - freed);
      offer(offers, most - here, moves, {.slot = slot, .expert = added});
    }
  }
}

void TargetSearch::consider_swaps(int32_t relieved, Offers& offers) {
  for (int32_t rank = 0; rank < state_.problem().num_ranks(); ++rank) {
    if (rank == relieved) continue;
    const int32_t fewest = fewest_moves(relieved) + fewest_moves(rank);
    if (fewest > offers.most_moves) continue;
    const double now = now_[index_of(relieved)] + now_[index_of(rank)];
    if (now * rate_of(fewest) <= offers.score) continue;
    if (most_of_swap(relieved, rank) * rate_of(fewest) <= offers.score) continue;
    const int32_t fewest_of_given = list_swapped(relieved, rank);
    for (const Swapped& taken : taken_) {
      if (now * rate_of(fewest_of_given + taken.moves) <= offers.score) continue;
      for (const Swapped& given : given_) {
        const double moved = given.share - taken.share;
        const int32_t moves = given.moves + taken.moves;
        if (moved <= 0.0 || now * rate_of(moves) <= offers.score) continue;
        const double gain = now - excess_with(relieved, -moved) - excess_with(rank, moved);
        if (gain * rate_of(moves) <= offers.score) continue;
        offer(offers, gain, moves, {.slot = given.slot, .other = taken.slot});
      }
    }
  }
}

/// What any swap of both could gain. Where the one lacks the room that the other needs, the gain is
/// what fits, or less what does not.
double TargetSearch::most_of_swap(int32_t relieved, int32_t rank) const {
  const double now = now_[index_of(relieved)] + now_[index_of(rank)];
  if (now_[index_of(rank)] > 0.0) return now;
  const double needed = state_.load(relieved) - limits_[index_of(relieved)];
  const double room = limits_[index_of(rank)] - state_.load(rank);
  if (needed <= room) return now;
  const double per_load = time_per_load_[index_of(relieved)];
  return std::max(room * per_load,
                  needed * per_load - (needed - room) * time_per_load_[index_of(rank)]);
}

/// The slots of both that may change hands.
/// @return the fewest moves that one of the first rank's adds to those of a swap.
int32_t TargetSearch::list_swapped(int32_t relieved, int32_t rank) {
  const int32_t per_rank = state_.problem().slots_per_rank;
  const auto list = [&](std::vector<Swapped>& swapped, int32_t from, int32_t to) {
    swapped.clear();
    for (int32_t slot = from * per_rank; slot < (from + 1) * per_rank; ++slot) {
      const int32_t expert = state_.expert_in(slot);
      if (expert >= 0 && !state_.may_hold(to, expert)) continue;
      swapped.push_back(
          {.share = expert < 0 ? 0.0 : experts_[index_of(expert)].share,
           .slot = slot,
           .moves = state_.cost_of_losing(from, expert) + state_.cost_of_getting(to, expert)});
    }
  };
  list(given_, relieved, rank);
  list(taken_, rank, relieved);
  int32_t fewest = 1;
  for (const Swapped& given : given_) fewest = std::min(fewest, given.moves);
  return fewest;
}

}  // namespace switchyard::stats

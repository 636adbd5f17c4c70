#include "stats/placement_search.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace switchyard::stats {
namespace {

std::size_t index_of(int64_t value) { return static_cast<std::size_t>(value); }

/// Gains below this share are rounding.
constexpr double kLeastGain = 1e-9;

}  // namespace

double longest_time(const LayerProblem& problem, std::span<const int32_t> slot_to_expert) {
  std::vector<int32_t> copies(problem.loads.size());
  for (const int32_t expert : slot_to_expert) {
    if (expert >= 0) ++copies[index_of(expert)];
  }
  double longest = 0.0;
  for (int32_t rank = 0; rank < problem.num_ranks(); ++rank) {
    double load = 0.0;
    for (int32_t i = 0; i < problem.slots_per_rank; ++i) {
      const int32_t expert = slot_to_expert[index_of(int64_t{rank} * problem.slots_per_rank + i)];
      if (expert >= 0) load += problem.loads[index_of(expert)] / copies[index_of(expert)];
    }
    longest = std::max(longest, load / problem.speeds[index_of(rank)]);
  }
  return longest;
}

double mean_time(const LayerProblem& problem) {
  return std::accumulate(problem.loads.begin(), problem.loads.end(), 0.0) /
         std::accumulate(problem.speeds.begin(), problem.speeds.end(), 0.0);
}

PlacementSearch::PlacementSearch(const LayerProblem& problem,
                                 std::span<const int32_t> slot_to_expert)
    : problem_(problem),
      slots_(slot_to_expert.begin(), slot_to_expert.end()),
      holders_(problem.loads.size()),
      loads_(problem.speeds.size()),
      holds_(problem.loads.size() * problem.speeds.size()),
      empty_at_start_(problem.speeds.size()),
      empty_(problem.speeds.size()) {
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    int32_t& expert = slots_[slot];
    const int32_t rank = rank_of(static_cast<int32_t>(slot));
    if (expert < 0) {
      ++empty_at_start_[index_of(rank)];
      ++empty_[index_of(rank)];
      continue;
    }
    uint8_t& here = holds_[index_of(rank) * problem.loads.size() + index_of(expert)];
    if (here != 0) {
      expert = -1;
      ++empty_[index_of(rank)];
      ++moved_;
      continue;
    }
    here = 1;
    holders_[index_of(expert)].push_back(rank);
  }
  held_ = holds_;
  for (int32_t expert = 0; expert < problem_.num_experts(); ++expert) {
    for (const int32_t rank : holders_[index_of(expert)]) loads_[index_of(rank)] += share(expert);
  }
}

bool PlacementSearch::holds(int32_t rank, int32_t expert) const {
  return holds_[index_of(rank) * problem_.loads.size() + index_of(expert)] != 0;
}

bool PlacementSearch::held(int32_t rank, int32_t expert) const {
  return held_[index_of(rank) * problem_.loads.size() + index_of(expert)] != 0;
}

double PlacementSearch::time_of(int32_t rank) const {
  return loads_[index_of(rank)] / problem_.speeds[index_of(rank)];
}

double PlacementSearch::share(int32_t expert) const { return share_with(expert, 0); }

double PlacementSearch::share_with(int32_t expert, int32_t more) const {
  const auto copies = static_cast<int32_t>(holders_[index_of(expert)].size());
  return problem_.loads[index_of(expert)] / (copies + more);
}

double PlacementSearch::longest_time() const { return time_of(slowest_rank()); }

int32_t PlacementSearch::slowest_rank() const {
  int32_t slowest = 0;
  for (int32_t rank = 1; rank < problem_.num_ranks(); ++rank) {
    if (time_of(rank) > time_of(slowest)) slowest = rank;
  }
  return slowest;
}

/// Whether a copy may be on the rank: not beside another, and in the expert's node where it has
/// one.
bool PlacementSearch::may_hold(int32_t rank, int32_t expert) const {
  if (holds(rank, expert)) return false;
  if (problem_.ranks_per_node == 0) return true;
  const int32_t home = holders_[index_of(expert)].front();
  return home / problem_.ranks_per_node == rank / problem_.ranks_per_node;
}

/// Moved slots more than before. A slot has not moved where it holds what the rank held, or stays
/// empty.
int32_t PlacementSearch::cost(int32_t rank, int32_t removed, int32_t added) const {
  int32_t stayed = 0;
  if (removed >= 0 && held(rank, removed)) --stayed;
  if (added >= 0 && held(rank, added)) ++stayed;
  const int32_t empty = empty_[index_of(rank)] + (added < 0 ? 1 : 0) - (removed < 0 ? 1 : 0);
  const int32_t empty_at_start = empty_at_start_[index_of(rank)];
  stayed += std::min(empty, empty_at_start) - std::min(empty_[index_of(rank)], empty_at_start);
  return -stayed;
}

/// Time of the slowest of an expert's other holders once its copy on `rank` is gone.
double PlacementSearch::time_without(int32_t expert, int32_t rank, int32_t slowest) const {
  double time = 0.0;
  const double more = share_with(expert, -1) - share(expert);
  for (const int32_t holder : holders_[index_of(expert)]) {
    if (holder == rank || holder == slowest) continue;
    time = std::max(time, (loads_[index_of(holder)] + more) / problem_.speeds[index_of(holder)]);
  }
  return time;
}

/// Keeps the step where it is better for what it moves.
/// @param time  of the slowest rank that it makes slower, the slowest itself included.
void PlacementSearch::offer(Step& best, double limit, double time, int32_t moves,
                            const Step& step) const {
  const double gain = limit - time;
  if (gain <= limit * kLeastGain) return;
  // Steps that move nothing new, or undo a move, are worth more than any that does.
  const double price = moves > 0 ? moves : 0.25;
  if (gain / price <= best.score) return;
  best = step;
  best.score = gain / price;
}

void PlacementSearch::consider_swaps(int32_t slowest, Step& best) const {
  const double limit = time_of(slowest);
  const int32_t per_rank = problem_.slots_per_rank;
  const double from_speed = problem_.speeds[index_of(slowest)];
  for (int32_t rank = 0; rank < problem_.num_ranks(); ++rank) {
    if (rank == slowest) continue;
    const double to_speed = problem_.speeds[index_of(rank)];
    const double even =
        (loads_[index_of(slowest)] + loads_[index_of(rank)]) / (from_speed + to_speed);
    if ((limit - even) * 4.0 <= best.score) continue;  // even if it cost nothing
    for (int32_t slot = slowest * per_rank; slot < (slowest + 1) * per_rank; ++slot) {
      const int32_t given = slots_[index_of(slot)];
      if (given < 0 || !may_hold(rank, given)) continue;
      for (int32_t other = rank * per_rank; other < (rank + 1) * per_rank; ++other) {
        const int32_t taken = slots_[index_of(other)];
        if (taken >= 0 && !may_hold(slowest, taken)) continue;
        const double moved = share(given) - (taken < 0 ? 0.0 : share(taken));
        if (moved <= 0.0) continue;
        const double time = std::max((loads_[index_of(slowest)] - moved) / from_speed,
                                     (loads_[index_of(rank)] + moved) / to_speed);
        offer(best, limit, time, cost(slowest, given, taken) + cost(rank, taken, given),
              {.slot = slot, .other = other});
      }
    }
  }
}

/// A slot of the slowest rank goes from an expert with other copies to a lighter one, or to none.
void PlacementSearch::consider_replacements(int32_t slowest, Step& best) const {
  const double limit = time_of(slowest);
  const int32_t per_rank = problem_.slots_per_rank;
  for (int32_t slot = slowest * per_rank; slot < (slowest + 1) * per_rank; ++slot) {
    const int32_t removed = slots_[index_of(slot)];
    if (removed < 0 || holders_[index_of(removed)].size() < 2) continue;
    const double others = time_without(removed, slowest, slowest);
    if (others >= limit) continue;
    const double without =
        (loads_[index_of(slowest)] - share(removed)) / problem_.speeds[index_of(slowest)];
    if (problem_.may_drop_copies) {
      offer(best, limit, std::max(others, without), cost(slowest, removed, -1), {.slot = slot});
    }
    for (int32_t added = 0; added < problem_.num_experts(); ++added) {
      if (!may_hold(slowest, added)) continue;
      const double load = loads_[index_of(slowest)] - share(removed) + share_with(added, 1);
      const double time = std::max(others, load / problem_.speeds[index_of(slowest)]);
      offer(best, limit, time, cost(slowest, removed, added), {.slot = slot, .expert = added});
    }
  }
}

/// An expert of the slowest rank gets another copy elsewhere, in the slot of one that has others.
void PlacementSearch::consider_copies(int32_t slowest, Step& best) const {
  const double limit = time_of(slowest);
  const int32_t per_rank = problem_.slots_per_rank;
  const double speed = problem_.speeds[index_of(slowest)];
  std::vector<int32_t> copied;
  for (int32_t slot = slowest * per_rank; slot < (slowest + 1) * per_rank; ++slot) {
    if (slots_[index_of(slot)] >= 0) copied.push_back(slots_[index_of(slot)]);
  }
  for (int32_t slot = 0; slot < static_cast<int32_t>(slots_.size()); ++slot) {
    const int32_t rank = rank_of(slot);
    const int32_t removed = slots_[index_of(slot)];
    if (rank == slowest) continue;
    double others = 0.0;
    double freed = 0.0;
    double added_back = 0.0;  // where the slowest holds what loses a copy
    if (removed >= 0) {
      if (holders_[index_of(removed)].size() < 2) continue;
      others = time_without(removed, rank, slowest);
      freed = share(removed);
      if (holds(slowest, removed)) added_back = share_with(removed, -1) - freed;
    }
    if (others >= limit) continue;
    for (const int32_t expert : copied) {
      if (expert == removed || !may_hold(rank, expert)) continue;
      const double added = share_with(expert, 1);
      const double here = loads_[index_of(slowest)] - share(expert) + added + added_back;
      const double there = loads_[index_of(rank)] - freed + added;
      const double time = std::max({others, here / speed, there / problem_.speeds[index_of(rank)]});
      offer(best, limit, time, cost(rank, removed, expert), {.slot = slot, .expert = expert});
    }
  }
}

void PlacementSearch::change(int32_t slot, int32_t expert) {
  const int32_t rank = rank_of(slot);
  const int32_t removed = slots_[index_of(slot)];
  changes_.push_back({slot, expert});
  moved_ += cost(rank, removed, expert);
  empty_[index_of(rank)] += (expert < 0 ? 1 : 0) - (removed < 0 ? 1 : 0);
  const auto recount = [&](int32_t changed, double sign) {
    for (const int32_t holder : holders_[index_of(changed)]) {
      loads_[index_of(holder)] += sign * share(changed);
    }
  };
  if (removed >= 0) {
    recount(removed, -1.0);
    std::vector<int32_t>& ranks = holders_[index_of(removed)];
    ranks.erase(std::find(ranks.begin(), ranks.end(), rank));
    recount(removed, 1.0);
    holds_[index_of(rank) * problem_.loads.size() + index_of(removed)] = 0;
  }
  slots_[index_of(slot)] = expert;
  if (expert < 0) return;
  recount(expert, -1.0);
  holders_[index_of(expert)].push_back(rank);
  recount(expert, 1.0);
  holds_[index_of(rank) * problem_.loads.size() + index_of(expert)] = 1;
}

void PlacementSearch::exchange(int32_t slot, int32_t other) {
  const int32_t given = slots_[index_of(slot)];
  const int32_t taken = slots_[index_of(other)];
  // An expert may be nowhere for a moment: its load is on no rank then, and comes back.
  change(slot, taken);
  change(other, given);
}

bool PlacementSearch::step() {
  const int32_t slowest = slowest_rank();
  Step best;
  consider_copies(slowest, best);
  consider_replacements(slowest, best);
  consider_swaps(slowest, best);
  if (best.slot < 0) return false;
  if (best.other < 0) {
    change(best.slot, best.expert);
    return true;
  }
  exchange(best.slot, best.other);
  return true;
}

}  // namespace switchyard::stats

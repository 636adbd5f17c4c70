#include "stats/placement_state.h"

#include <algorithm>
#include <numeric>

#include "stats/index_of.h"

namespace switchyard::stats {
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

PlacementState::PlacementState(const LayerProblem& problem, std::span<const int32_t> slot_to_expert)
    : problem_(problem),
      slots_(slot_to_expert.begin(), slot_to_expert.end()),
      holders_(problem.loads.size()),
      loads_(problem.speeds.size()),
      holds_(problem.loads.size() * problem.speeds.size()),
      empty_at_start_(problem.speeds.size()),
      empty_(problem.speeds.size()),
      moved_on_(problem.speeds.size()) {
  for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
    int32_t& expert = slots_[slot];
    const int32_t rank = rank_of(static_cast<int32_t>(slot));
    if (expert < 0) {
      ++empty_at_start_[index_of(rank)];
      ++empty_[index_of(rank)];
      continue;
    }
    uint8_t& here = holds_[place_of(rank, expert)];
    if (here != 0) {
      expert = -1;
      ++empty_[index_of(rank)];
      ++moved_;
      ++moved_on_[index_of(rank)];
      continue;
    }
    here = 1;
    holders_[index_of(expert)].push_back(rank);
  }
  held_ = holds_;
  for (int32_t expert = 0; expert < problem_.num_experts(); ++expert) add_shares(expert, 1.0);
}

bool PlacementState::in_node_of(int32_t rank, int32_t expert) const {
  const int32_t home = holders(expert).front();
  return home / problem_.ranks_per_node == rank / problem_.ranks_per_node;
}

int32_t PlacementState::slowest_rank() const {
  int32_t slowest = 0;
  for (int32_t rank = 1; rank < problem_.num_ranks(); ++rank) {
    if (time_of(rank) > time_of(slowest)) slowest = rank;
  }
  return slowest;
}

/// Adds `sign` times the share of an expert to its ranks.
void PlacementState::add_shares(int32_t expert, double sign) {
  for (const int32_t holder : holders(expert)) loads_[index_of(holder)] += sign * share(expert);
}

void PlacementState::change(int32_t slot, int32_t expert) {
  changes_.push_back({slot, expert, slots_[index_of(slot)]});
  set(slot, expert);
}

void PlacementState::undo() {
  set(changes_.back().slot, changes_.back().before);
  changes_.pop_back();
}

void PlacementState::set(int32_t slot, int32_t expert) {
  const int32_t rank = rank_of(slot);
  const int32_t removed = slots_[index_of(slot)];
  const int32_t more = cost(rank, removed, expert);
  moved_ += more;
  moved_on_[index_of(rank)] += more;
  empty_[index_of(rank)] += (expert < 0 ? 1 : 0) - (removed < 0 ? 1 : 0);
  if (removed >= 0) {
    add_shares(removed, -1.0);
    std::vector<int32_t>& ranks = holders_[index_of(removed)];
    ranks.erase(std::find(ranks.begin(), ranks.end(), rank));
    add_shares(removed, 1.0);
    holds_[place_of(rank, removed)] = 0;
  }
  slots_[index_of(slot)] = expert;
  if (expert < 0) return;
  add_shares(expert, -1.0);
  holders_[index_of(expert)].push_back(rank);
  add_shares(expert, 1.0);
  holds_[place_of(rank, expert)] = 1;
}

void PlacementState::exchange(int32_t slot, int32_t other) {
  const int32_t given = slots_[index_of(slot)];
  const int32_t taken = slots_[index_of(other)];
  // An expert may be nowhere for a moment: its load is on no rank then, and comes back.
  change(slot, taken);
  change(other, given);
}

}  // namespace switchyard::stats

#include "stats/placement_ruin_search.h"

#include <algorithm>
#include <utility>

#include "stats/index_of.h"

namespace switchyard::stats {
namespace {

constexpr uint64_t kSeed = 1;
/// Slots that are taken back at once, at most, besides those that go with them.
constexpr int64_t kMostRuined = 5;
/// The search ends when so much work makes the target no shorter by this share: steps, times the
/// slots that a step looks at.
constexpr int64_t kPatience = 576'000;
constexpr double kWorthPatience = 0.001;
/// Of what is left to gain: how much shorter the next target is. And of what is enough, at least.
constexpr double kTightening = 0.005;
constexpr double kLeastTightening = 1e-5;

}  // namespace

RuinSearch::RuinSearch(const LayerProblem& problem, std::span<const int32_t> in_force,
                       std::span<const int32_t> start, double enough)
    : in_force_(in_force), enough_(enough), search_(problem, in_force, enough), chance_(kSeed) {
  for (std::size_t slot = 0; slot < start.size(); ++slot) {
    const auto at = static_cast<int32_t>(slot);
    if (start[slot] != state().expert_in(at)) search_.change(at, start[slot]);
  }
  target_ = time();
  most_moved_ = state().moved();
}

std::vector<RuinSearch::Reached> RuinSearch::run() {
  double excess = tighten();
  double last = target_;
  const int64_t patience =
      kPatience / (std::ssize(in_force_) * state().problem().slots_per_rank) + 1;
  int64_t next = patience;
  while (target_ > enough_) {
    if (search_.num_steps() >= next) {
      if (last - target_ < kWorthPatience * enough_) break;
      last = target_;
      next = search_.num_steps() + patience;
    }
    const std::size_t before = state().changes().size();
    ruin(1 + chance_.below(kMostRuined));
    search_.run(most_moved_, &chance_);
    const double now = search_.total_excess();
    if (now > excess) {
      search_.undo_to(before);
      continue;
    }
    excess = now;
    if (now > 0.0) continue;
    record();
    excess = tighten();
  }
  return std::move(reached_);
}

/// Aims at shorter times until one is not reached at once.
/// @return by how much.
double RuinSearch::tighten() {
  double excess = 0.0;
  while (excess == 0.0 && target_ > enough_) {
    const double less = std::max(kTightening * (time() - enough_), kLeastTightening * enough_);
    target_ = std::max(enough_, time() - less);
    search_.aim_at(target_);
    search_.run(most_moved_);
    excess = search_.total_excess();
    if (excess == 0.0) record();
  }
  return excess;
}

void RuinSearch::record() {
  Reached reached{.moved_slots = state().moved(), .changes = {}};
  for (std::size_t slot = 0; slot < in_force_.size(); ++slot) {
    const int32_t expert = state().slots()[slot];
    if (expert == in_force_[slot]) continue;
    reached.changes.push_back({static_cast<int32_t>(slot), expert, in_force_[slot]});
  }
  // Summed anew: what many steps add up to is rounded by chance.
  reached.time = longest_time(state().problem(), state().slots());
  reached_.push_back(std::move(reached));
}

/// Whether the slot holds what its rank did not hold.
bool RuinSearch::is_new(int32_t slot) const {
  const int32_t rank = state().rank_of(slot);
  const int32_t expert = state().expert_in(slot);
  return expert < 0 ? missing_on(rank) >= 0 : !state().held(rank, expert);
}

/// An expert that the rank held and does not hold now, -1 where there is none.
int32_t RuinSearch::missing_on(int32_t rank) const {
  const int32_t per_rank = state().problem().slots_per_rank;
  for (int32_t slot = rank * per_rank; slot < (rank + 1) * per_rank; ++slot) {
    const int32_t expert = in_force_[index_of(slot)];
    if (expert >= 0 && !state().holds(rank, expert)) return expert;
  }
  return -1;
}

void RuinSearch::ruin(int64_t num_slots) {
  new_slots_.clear();
  for (int32_t slot = 0; slot < static_cast<int32_t>(in_force_.size()); ++slot) {
    if (state().moved_on(state().rank_of(slot)) > 0 && is_new(slot)) new_slots_.push_back(slot);
  }
  if (new_slots_.empty()) return;
  for (; num_slots > 0; --num_slots) {
    const int32_t slot = new_slots_[index_of(chance_.below(std::ssize(new_slots_)))];
    if (is_new(slot)) give_back(slot, missing_on(state().rank_of(slot)));
  }
}

/// An expert that has no copy left gets one of its old slots back, and so on.
void RuinSearch::give_back(int32_t slot, int32_t expert) {
  const int32_t per_rank = state().problem().slots_per_rank;
  while (true) {
    const int32_t removed = state().expert_in(slot);
    search_.change(slot, expert);
    if (removed < 0 || !state().holders(removed).empty()) return;
    expert = removed;
    const auto old = std::find(in_force_.begin(), in_force_.end(), expert);
    slot = state().rank_of(static_cast<int32_t>(old - in_force_.begin())) * per_rank;
    while (!is_new(slot)) ++slot;
  }
}

}  // namespace switchyard::stats

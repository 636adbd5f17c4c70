#include "stats/placement_annealing.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "stats/chance.h"
#include "stats/index_of.h"

namespace switchyard::stats {
namespace {

/// Of the mean time: how much worse the first steps may be.
constexpr double kFirstThreshold = 0.15;
/// Weight of all ranks' unevenness beside the slowest one's time: it points the way where the
/// slowest stays as it is.
constexpr double kUnevennessWeight = 0.02;

class Annealing {
 public:
  Annealing(const LayerProblem& problem, std::span<const int32_t> start, uint64_t seed)
      : problem_(problem),
        mean_(mean_time(problem)),
        slots_(start.begin(), start.end()),
        copies_(problem.loads.size()),
        holds_(problem.loads.size() * problem.speeds.size()),
        loads_(problem.speeds.size()),
        chance_(seed) {
    for (std::size_t slot = 0; slot < slots_.size(); ++slot) {
      if (slots_[slot] >= 0) put(static_cast<int32_t>(slot), slots_[slot]);
    }
    best_ = slots_;
    std::tie(cost_, time_) = rate();
    best_time_ = time_;
  }

  std::vector<int32_t> run(double wanted, int64_t num_steps) {
    for (int64_t step = 0; step < num_steps && best_time_ > wanted; ++step) {
      const double left = 1.0 - static_cast<double>(step) / static_cast<double>(num_steps);
      try_step(kFirstThreshold * left * left * left * left);
    }
    return best_;
  }

 private:
  [[nodiscard]] uint8_t& holds(int32_t rank, int32_t expert) {
    return holds_[index_of(rank) * problem_.loads.size() + index_of(expert)];
  }
  [[nodiscard]] int32_t rank_of(int32_t slot) const { return slot / problem_.slots_per_rank; }

  /// Adds `sign` times the share of an expert to its ranks.
  void add_shares(int32_t expert, double sign) {
    if (copies_[index_of(expert)] == 0) return;
    const double share = sign * problem_.loads[index_of(expert)] / copies_[index_of(expert)];
    for (int32_t rank = 0; rank < problem_.num_ranks(); ++rank) {
      if (holds(rank, expert) != 0) loads_[index_of(rank)] += share;
    }
  }
  void put(int32_t slot, int32_t expert) {
    slots_[index_of(slot)] = expert;
    if (expert < 0) return;
    add_shares(expert, -1.0);
    ++copies_[index_of(expert)];
    holds(rank_of(slot), expert) = 1;
    add_shares(expert, 1.0);
  }
  int32_t take(int32_t slot) {
    const int32_t expert = std::exchange(slots_[index_of(slot)], -1);
    if (expert < 0) return expert;
    add_shares(expert, -1.0);
    --copies_[index_of(expert)];
    holds(rank_of(slot), expert) = 0;
    add_shares(expert, 1.0);
    return expert;
  }

  /// What is lowered, and the slowest rank's time.
  [[nodiscard]] std::pair<double, double> rate() const {
    double longest = 0.0;
    double squares = 0.0;
    for (std::size_t rank = 0; rank < loads_.size(); ++rank) {
      const double time = loads_[rank] / problem_.speeds[rank] / mean_;
      longest = std::max(longest, time);
      squares += time * time;
    }
    return {longest + kUnevennessWeight * squares / static_cast<double>(loads_.size()),
            longest * mean_};
  }

  void try_step(double threshold) {
    const auto num_slots = static_cast<int64_t>(slots_.size());
    const auto slot = static_cast<int32_t>(chance_.below(num_slots));
    const int32_t rank = rank_of(slot);
    const int32_t held = slots_[index_of(slot)];
    int32_t other = -1;
    int32_t wanted = -1;
    if (chance_.below(2) == 0) {
      other = static_cast<int32_t>(chance_.below(num_slots));
      wanted = slots_[index_of(other)];
      if (rank_of(other) == rank || wanted == held) return;
      if (held >= 0 && holds(rank_of(other), held) != 0) return;
    } else {
      wanted = static_cast<int32_t>(chance_.below(problem_.num_experts() + 1)) - 1;
      if (wanted == held || (held >= 0 && copies_[index_of(held)] == 1)) return;
    }
    if (wanted >= 0 && holds(rank, wanted) != 0) return;
    // Kept to come back to: what was added and taken again is no longer the same to the bit.
    before_ = loads_;
    take(slot);
    if (other >= 0) {
      take(other);
      put(other, held);
    }
    put(slot, wanted);
    const auto [cost, time] = rate();
    if (cost > cost_ + threshold) {
      take(slot);
      if (other >= 0) {
        take(other);
        put(other, wanted);
      }
      put(slot, held);
      loads_ = before_;
      return;
    }
    cost_ = cost;
    time_ = time;
    if (time >= best_time_) return;
    best_time_ = time;
    best_ = slots_;
  }

  LayerProblem problem_;
  double mean_;
  std::vector<int32_t> slots_;
  std::vector<int32_t> copies_;
  std::vector<uint8_t> holds_;  ///< [num_ranks, num_experts]
  std::vector<double> loads_;   ///< [num_ranks]
  std::vector<double> before_;
  std::vector<int32_t> best_;
  double best_time_ = 0.0;
  double cost_ = 0.0;
  double time_ = 0.0;
  Chance chance_;
};

}  // namespace

std::vector<int32_t> anneal(const LayerProblem& problem, std::span<const int32_t> start,
                            double wanted, int64_t num_steps, uint64_t seed) {
  return Annealing(problem, start, seed).run(wanted, num_steps);
}

}  // namespace switchyard::stats

// Search on from a placement that few moves reach: parts of the change are taken back and made
// anew.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stats/chance.h"
#include "stats/placement_state.h"
#include "stats/placement_target_search.h"

namespace switchyard::stats {

/// Ruin and recreate (Schrimpf, Schneider, Stamm-Wilbrandt and Dueck, Journal of Computational
/// Physics 159, 2000): a time a little shorter than the best so far is aimed at; some moved slots,
/// by chance, get back what they held, and the search goes on from there. Where the ranks are then
/// further above the target than before, that is forgotten. The same bits every time.
class RuinSearch {
 public:
  /// A placement on the way.
  struct Reached {
    int64_t moved_slots = 0;
    double time = 0.0;  ///< of the slowest rank
    std::vector<PlacementState::Change> changes;
  };

  /// @param in_force  [num_slots]
  /// @param start     [num_slots] that moves some slots.
  /// @param enough    time below which nothing is gained.
  RuinSearch(const LayerProblem& problem, std::span<const int32_t> in_force,
             std::span<const int32_t> start, double enough);

  /// Goes on until the start's number of moves brings little more.
  /// @return what moves no more slots than the start, each faster than those before.
  std::vector<Reached> run();

 private:
  [[nodiscard]] double time() const { return state().time_of(state().slowest_rank()); }
  [[nodiscard]] const PlacementState& state() const { return search_.state(); }
  [[nodiscard]] bool is_new(int32_t slot) const;
  [[nodiscard]] int32_t missing_on(int32_t rank) const;
  void ruin(int64_t num_slots);
  void give_back(int32_t slot, int32_t expert);
  double tighten();
  void record();

  std::span<const int32_t> in_force_;
  double enough_;
  TargetSearch search_;
  double target_ = 0.0;
  int64_t most_moved_ = 0;
  std::vector<int32_t> new_slots_;
  std::vector<Reached> reached_;
  Chance chance_;
};

}  // namespace switchyard::stats

// Search for few moves that bring every rank below a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stats/placement_state.h"

namespace switchyard::stats {

/// Changes a placement until no rank takes longer than a target, by moves that are worth most for
/// the slots they move: what counts is how many ranks are above the target, and how far, not the
/// slowest one alone. So a move that helps two ranks is worth two.
class TargetSearch {
 public:
  /// @param slot_to_expert  a second copy of an expert on a rank counts as an empty slot.
  /// @param target          time that no rank should exceed, above 0.
  TargetSearch(const LayerProblem& problem, std::span<const int32_t> slot_to_expert, double target);

  /// Goes on until the target is reached, more than `most_moved` slots have moved, or no step
  /// helps.
  /// @return whether the target is reached with no more slots.
  bool run(int64_t most_moved);

  [[nodiscard]] const PlacementState& state() const { return state_; }

 private:
  struct Step {
    double score = 0.0;  ///< what it is worth for each moved slot
    int32_t slot = -1;   ///< gets `expert`, or what is in `other`
    int32_t other = -1;  ///< a slot to swap with
    int32_t expert = -1;
  };
  /// An expert's copies, and what one more or fewer does to the ranks that hold them.
  struct Rating {
    double share = 0.0;
    double share_of_more = 0.0;
    double share_of_fewer = 0.0;
    double relief = 0.0;  ///< by one more
    double harm = 0.0;    ///< by one fewer, to each
  };
  [[nodiscard]] double excess_with(int32_t rank, double more) const;
  [[nodiscard]] double total_excess() const;
  void rate_experts();
  void offer(Step& best, double gain, int32_t moves, const Step& step) const;
  void consider_swaps(int32_t slowest, Step& best) const;
  void consider_replacements(int32_t slowest, Step& best) const;
  void consider_copies(int32_t slowest, Step& best) const;
  [[nodiscard]] double best_rate(int32_t rank) const;
  [[nodiscard]] double harm_elsewhere(int32_t expert, int32_t rank) const;

  PlacementState state_;
  double target_;
  double per_rank_;               ///< excess of any rank above the target
  std::vector<double> limits_;    ///< [num_ranks] load at the target
  std::vector<double> now_;       ///< [num_ranks] excess
  std::vector<uint8_t> touched_;  ///< [num_ranks] whether a step changed its slots
  std::vector<Rating> experts_;   ///< [num_experts]
};

}  // namespace switchyard::stats

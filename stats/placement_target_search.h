// Search for few moves that bring every rank below a time.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "stats/chance.h"
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

  /// Another target from now on.
  void aim_at(double target);

  /// Goes on until the target is reached, or no step helps that `most_moved` slots allow.
  /// @param chance  where there is one, it chooses the rank above the target that is next, and
  /// among
  ///                copies that are worth the same; else it is the slowest rank and the first copy.
  /// @return whether the target is reached.
  bool run(int64_t most_moved, Chance* chance = nullptr);

  /// How many ranks are above the target and how far, in one number; 0 where none is.
  [[nodiscard]] double total_excess();
  /// Steps so far, also those taken back.
  [[nodiscard]] int64_t num_steps() const { return num_steps_; }

  /// Gives a slot to an expert, -1: to none.
  void change(int32_t slot, int32_t expert);
  /// Takes all changes back but the first so many.
  void undo_to(std::size_t num_changes);

  [[nodiscard]] const PlacementState& state() const { return state_; }

 private:
  struct Step {
    int32_t slot = -1;   ///< gets `expert`, or what is in `other`
    int32_t other = -1;  ///< a slot to swap with
    int32_t expert = -1;
  };
  struct Offers {
    Step best{};
    double score = 0.0;      ///< what it is worth for each moved slot
    int32_t most_moves = 0;  ///< that a step may add to those made
    Chance* chance = nullptr;
  };
  /// An expert's copies, and what one more or fewer does to the ranks that hold them.
  struct Rating {
    double share = 0.0;
    double share_of_more = 0.0;
    double share_of_fewer = 0.0;
    double relief = 0.0;  ///< by one more
    double harm = 0.0;    ///< by one fewer, to each
    int32_t copies = 0;
  };
  /// An expert that another rank could hold too.
  struct Copied {
    int32_t expert = -1;
    int32_t moves = 0;  ///< what it adds to those of a step
  };
  /// A slot of one of two ranks.
  struct Swapped {
    double share = 0.0;
    int32_t slot = -1;
    int32_t moves = 0;  ///< what it adds to those of a swap
  };
  [[nodiscard]] double excess_with(int32_t rank, double more) const {
    const double load = state_.load(rank) + more;
    const auto at = static_cast<std::size_t>(rank);
    return load <= limits_[at] ? 0.0 : load * time_per_load_[at] - target_ + per_rank_;
  }
  [[nodiscard]] int32_t rank_above(Chance* chance);
  [[nodiscard]] bool step(int32_t rank, Offers offers);
  void mark(int32_t rank);
  void mark_around(int32_t slot);
  void rate_marked();
  void rate(int32_t expert);
  void offer(Offers& offers, double gain, int32_t moves, const Step& step) const;
  void consider_swaps(int32_t relieved, Offers& offers);
  [[nodiscard]] double most_of_swap(int32_t relieved, int32_t rank) const;
  [[nodiscard]] int32_t list_swapped(int32_t relieved, int32_t rank);
  void consider_replacements(int32_t relieved, Offers& offers) const;
  void consider_copies(int32_t relieved, Offers& offers);
  void list_copied(int32_t relieved, int32_t rank);
  [[nodiscard]] int32_t fewest_moves(int32_t rank) const;
  void mark_homes(int32_t relieved);
  [[nodiscard]] double harm_elsewhere(int32_t expert, int32_t rank) const;

  PlacementState state_;
  int64_t num_steps_ = 0;
  double target_ = 0.0;
  double per_rank_ = 0.0;              ///< excess of any rank above the target
  std::vector<double> time_per_load_;  ///< [num_ranks] inverse of speed
  std::vector<double> limits_;         ///< [num_ranks] load at the target
  std::vector<double> now_;            ///< [num_ranks] excess
  std::vector<Rating> experts_;        ///< [num_experts]
  std::vector<uint8_t> rank_marked_;  ///< [num_ranks] whether now_ and its experts' ratings are old
  std::vector<int32_t> marked_;       ///< those ranks
  std::vector<uint8_t> expert_rated_;       ///< [num_experts] in the present round of ratings
  std::vector<int32_t> rated_;              ///< those experts
  std::vector<int32_t> homes_;              ///< ranks that held each expert at the start
  std::vector<std::ptrdiff_t> first_home_;  ///< [num_experts + 1] among them
  std::vector<uint8_t> home_of_;  ///< [num_ranks] 1 where an expert might come back to the rank
  std::vector<Copied> copied_;
  std::vector<Swapped> given_;
  std::vector<Swapped> taken_;
  std::vector<int32_t> above_;  ///< ranks above the target
};

}  // namespace switchyard::stats

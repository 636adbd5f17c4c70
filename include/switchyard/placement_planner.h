// Where the copies of a model's experts should live, from their loads: from nothing, or as a change
// of the placement in force that pays for what it moves.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "switchyard/expert_placement.h"
#include "switchyard/placement_moves.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// How far apart the copies of an expert may be.
enum class PlacementScope : uint8_t {
  kAuto,          ///< hierarchical where there are several nodes and groups that divide by them
  kGlobal,        ///< any expert on any rank
  kHierarchical,  ///< whole groups to nodes, as many to each, then experts to the node's ranks
};

struct PlacementPlannerConfig {
  int32_t num_experts = 0;
  int32_t num_ranks = 0;
  int32_t num_slots = 0;   ///< of all ranks; a multiple of them, at least num_experts
  int32_t num_nodes = 1;   ///< divides num_ranks; ranks of a node are consecutive
  int32_t num_groups = 1;  ///< of consecutive experts; divides num_experts. With kHierarchical, 1
                           ///< means that each expert is a group
  PlacementScope scope = PlacementScope::kAuto;
  std::vector<double> rank_speeds{};  ///< [num_ranks] load a second, above 0; empty: all alike
  /// Whether a rank may hold several copies of an expert. Such a rank takes as many shares of the
  /// expert's load, which now and then balances a little better where experts are few and copies
  /// many; but a copy beside another is memory that spreads no load. With it, and without
  /// rank_speeds, max/mean is never above that of DeepSeek's EPLB; without it, only where EPLB puts
  /// copies on one rank itself.
  bool may_repeat_on_rank = false;
  int32_t num_threads = 0;  ///< at most; 0: as many as processors. Never changes results
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const PlacementPlannerConfig& config);

/// What a change of placement may cost, and what it must bring.
struct MigrationPolicy {
  /// Slots of all layers together that may get another expert or none; none: any number.
  std::optional<int64_t> max_moved_slots{};
  /// A layer whose max/mean could fall by less, were any number of slots moved, is left alone.
  double min_gain = 0.02;
  /// Moves that lower their layer's max/mean by less a slot are left out.
  double min_gain_per_slot = 0.001;
  /// Assignments that a unit of load stands for: loads counted from a sample are uncertain by the
  /// square root of their count, and what may be chance alone is no gain either. 0: loads are
  /// exact; none: 1 where all loads are whole numbers, else 0.
  std::optional<double> samples_per_load{};

  int64_t bytes_per_slot = 0;     ///< of an expert's weights
  double bandwidth_gbps = 0.0;    ///< of a rank, 1e9 bytes a second; 0: moves cost no time
  double pause_seconds = 0.0;     ///< that any change costs besides
  double seconds_per_load = 0.0;  ///< of a rank of speed 1; 0: gains and costs in time unknown
  double times_repeated = 1.0;    ///< how often loads like these will come while the plan holds
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const MigrationPolicy& policy);

/// A layer's placement and what it means for its loads. max/mean is of the ranks' loads over their
/// speeds: the slowest rank's time over that of ranks that all take as long; 1 without load. The
/// copies of an expert share its load evenly.
struct PlannedLayer {
  ExpertPlacement placement;
  double max_over_mean = 1.0;
  double max_over_mean_before = 1.0;  ///< of the placement in force; the same where there is none
  int64_t moved_slots = 0;
};

/// Why a plan is as it is.
enum class PlacementVerdict : uint8_t {
  kPlanned,       ///< from nothing
  kChanged,       ///< some layers get another placement
  kGoodEnough,    ///< nothing to gain, or less than MigrationPolicy asks for
  kNotWorthCost,  ///< the gain would be less than the moves cost: nothing changes
};

struct PlacementPlan {
  std::vector<PlannedLayer> layers;
  PlacementVerdict verdict = PlacementVerdict::kPlanned;
  int64_t moved_slots = 0;
  std::vector<PlacementMove> moves;  ///< layer by layer, in an order that is safe
  double gain_seconds = 0.0;  ///< that the change saves, or would have saved where it is refused
  double cost_seconds = 0.0;  ///< that its moves take, or would have taken
};

/// A placement of every layer from nothing.
///
/// Copies go to the expert whose copies carry most; copies are packed heaviest first onto the
/// lightest rank with room, which is the published algorithm of DeepSeek's EPLB, but never two
/// copies of an expert onto one rank; then pairs of copies on the slowest and another rank are
/// swapped as long as that helps. Where EPLB's own placement is still better, by copies on one
/// rank, other numbers of copies are tried, and ranks of one expert alone, and with
/// may_repeat_on_rank its placement is taken at last. Slots stay empty where more than num_experts
/// are a rank's, and where a copy more could only harm.
///
/// The same bits for any number of threads.
///
/// @param loads  [num_layers, num_experts], finite and 0 or more, in any unit.
/// @throws InvalidArgument  when the config is refused, or a load, naming layer and expert.
PlacementPlan plan_placement(const PlacementPlannerConfig& config, MatrixView<const double> loads);

/// The best change of the placement in force within what `policy` allows.
///
/// Every layer looks for steps, each the one that gains most for each slot it moves: swaps, and
/// slots that go from a copy of one expert to a copy of another. Where fewer slots may move than a
/// plan from nothing would, searches for the fewest moves that bring all ranks below some time
/// compete, and where more may, that plan, laid over the ranks that resemble it. Then the slots
/// allowed go to the layers where they gain most time, and each layer looks for a better use of its
/// own: parts of the change are taken back and made anew, as long as that pays. In a hierarchical
/// scope steps stay in their node. The same bits for any number of threads.
///
/// @param in_force  a layer each, of the config's experts, ranks and slots.
/// @throws InvalidArgument  as plan_placement(), and when a placement in force is of another shape
///                          or the policy is refused.
PlacementPlan replan_placement(const PlacementPlannerConfig& config, MatrixView<const double> loads,
                               std::span<const ExpertPlacement> in_force,
                               const MigrationPolicy& policy);

/// max/mean of one layer's placement; see PlannedLayer.
///
/// @param loads        [num_experts]
/// @param rank_speeds  [num_ranks], or empty: all alike.
/// @throws InvalidArgument  for a load or a speed that is refused, or sizes that disagree.
double max_over_mean(const ExpertPlacement& placement, VectorView<const double> loads,
                     std::span<const double> rank_speeds = {});

}  // namespace switchyard

// How to get from one placement of experts to another: which copies to send where, in a safe order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/expert_placement.h"

namespace switchyard {

/// What one step of a schedule does.
enum class MoveKind : uint8_t {
  kCopy,      ///< sends what from_slot holds into to_slot
  kSetAside,  ///< sends what from_slot holds into room beside to_rank's slots, for one expert
  kPutBack,   ///< writes what was set aside on to_rank into to_slot; nothing is sent
};

/// A step: `expert` from slot to slot.
struct PlacementMove {
  MoveKind kind = MoveKind::kCopy;
  int32_t layer = 0;  ///< place in the list of layers
  int32_t expert = 0;
  int32_t from_slot = -1;  ///< -1 for kPutBack
  int32_t from_rank = -1;
  int32_t to_slot = -1;
  int32_t to_rank = -1;
  int64_t bytes = 0;  ///< that go from rank to rank; 0 for kPutBack and within a rank

  bool operator==(const PlacementMove&) const = default;
};

/// Slots that hold another expert than before, or none any more.
/// @throws InvalidArgument  as schedule_moves().
int64_t moved_slots(const ExpertPlacement& before, const ExpertPlacement& after);

/// The steps from `before` to `after`, one after another.
///
/// Whenever a step reads a slot, the slot still holds, from `before`, the expert that the step
/// sends. Sources are slots that keep their expert where there are any, in the same node before
/// others, taken in turns. Where slots swap their experts in a ring, one expert is set aside first
/// and put back last; never more than one at a time.
///
/// @param layer           told in every step.
/// @param bytes_per_slot  of an expert's weights, 0 or more.
/// @param ranks_per_node  1 or more.
/// @throws InvalidArgument  when the placements differ in experts, ranks or slots of a rank, naming
///                          both numbers, or a number is out of range.
std::vector<PlacementMove> schedule_moves(const ExpertPlacement& before,
                                          const ExpertPlacement& after, int32_t layer,
                                          int64_t bytes_per_slot, int32_t ranks_per_node = 1);

/// The busier direction of the busiest rank, in bytes: what the moves wait for where all links are
/// alike and all layers move at once.
int64_t busiest_rank_bytes(std::span<const PlacementMove> moves, int32_t num_ranks);

}  // namespace switchyard

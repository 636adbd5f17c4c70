// Where the copies of every expert live: experts to slots, slots to ranks.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/tensor_view.h"

namespace switchyard {

inline constexpr int32_t kMaxPlacementExperts = 4096;
inline constexpr int32_t kMaxPlacementRanks = 65536;
inline constexpr int32_t kMaxPlacementSlots = 1 << 20;

/// A copy of an expert on a rank.
struct ExpertReplica {
  int32_t expert = 0;
  int32_t rank = 0;
};

/// Which slot of which rank holds which expert. Slots are numbered through all ranks, in order of
/// rank. A value: copies share nothing.
class ExpertPlacement {
 public:
  /// One copy of each expert in contiguous blocks; the first num_experts mod num_ranks ranks hold
  /// one more than the others, and ranks beyond num_experts none. Slot s holds expert s.
  /// @throws InvalidArgument  naming the argument, its value and the limit.
  static ExpertPlacement contiguous(int32_t num_experts, int32_t num_ranks);

  /// Slots shared evenly: slot s lives on rank s / (slot_to_expert.size() / num_ranks).
  ///
  /// @param slot_to_expert  the expert of each slot, -1 for an empty one.
  /// @throws InvalidArgument  for slots that do not divide by the ranks, an id out of range, or an
  ///                          expert without a slot, naming it.
  static ExpertPlacement from_slots(int32_t num_experts, int32_t num_ranks,
                                    std::span<const int32_t> slot_to_expert);

  /// Any number of experts on any rank; a rank's slots follow the order of `replicas`.
  /// @throws InvalidArgument  for an expert or a rank out of range, or an expert without a replica.
  static ExpertPlacement from_replicas(int32_t num_experts, int32_t num_ranks,
                                       std::span<const ExpertReplica> replicas);

  [[nodiscard]] int32_t num_experts() const { return num_experts_; }
  [[nodiscard]] int32_t num_ranks() const { return static_cast<int32_t>(slot_offsets_.size()) - 1; }
  [[nodiscard]] int32_t num_slots() const { return slot_offsets_.back(); }

  /// [num_slots] the expert of each slot, -1 for an empty one.
  [[nodiscard]] std::span<const int32_t> slot_to_expert() const { return slot_to_expert_; }
  /// [num_ranks + 1] first slot of each rank.
  [[nodiscard]] std::span<const int32_t> slot_offsets() const { return slot_offsets_; }
  /// [num_experts + 1] first entry of each expert in replica_slots().
  [[nodiscard]] std::span<const int32_t> replica_offsets() const { return replica_offsets_; }
  /// Slots of each expert's copies, ascending.
  [[nodiscard]] std::span<const int32_t> replica_slots() const { return replica_slots_; }

  /// @param slot  in [0, num_slots).
  [[nodiscard]] int32_t rank_of_slot(int32_t slot) const;
  /// Slots of `rank`, in [0, num_ranks).
  [[nodiscard]] int32_t num_slots_of(int32_t rank) const;
  /// Whether slot s holds expert s: ids of experts serve as ids of slots.
  [[nodiscard]] bool slots_are_experts() const { return slots_are_experts_; }

  /// A hash of everything above, for ranks to compare.
  [[nodiscard]] uint64_t fingerprint() const;

  bool operator==(const ExpertPlacement&) const = default;

 private:
  ExpertPlacement(int32_t num_experts, std::vector<int32_t> slot_to_expert,
                  std::vector<int32_t> slot_offsets);

  int32_t num_experts_;
  std::vector<int32_t> slot_to_expert_;
  std::vector<int32_t> slot_offsets_;
  std::vector<int32_t> replica_offsets_;
  std::vector<int32_t> replica_slots_;
  bool slots_are_experts_ = false;
};

}  // namespace switchyard

#include "switchyard/expert_placement.h"

#include <algorithm>

#include "nccl/fingerprint.h"
#include "nccl/refuse.h"

namespace switchyard {

using nccl::check_range;
using nccl::refuse;

namespace {

void check_sizes(int32_t num_experts, int32_t num_ranks) {
  check_range("num_ranks", num_ranks, 1, kMaxPlacementRanks);
  check_range("num_experts", num_experts, 1, kMaxPlacementExperts);
}

}  // namespace

ExpertPlacement::ExpertPlacement(int32_t num_experts, std::vector<int32_t> slot_to_expert,
                                 std::vector<int32_t> slot_offsets)
    : num_experts_(num_experts),
      slot_to_expert_(std::move(slot_to_expert)),
      slot_offsets_(std::move(slot_offsets)),
      replica_offsets_(static_cast<std::size_t>(num_experts) + 1) {
  for (const int32_t expert : slot_to_expert_) {
    if (expert >= 0) ++replica_offsets_[static_cast<std::size_t>(expert) + 1];
  }
  for (std::size_t expert = 0; expert < static_cast<std::size_t>(num_experts); ++expert) {
    if (replica_offsets_[expert + 1] == 0) refuse("placement has no slot for expert ", expert);
    replica_offsets_[expert + 1] += replica_offsets_[expert];
  }
  replica_slots_.resize(static_cast<std::size_t>(replica_offsets_.back()));
  std::vector<int32_t> next(replica_offsets_.begin(), replica_offsets_.end() - 1);
  slots_are_experts_ = num_slots() == num_experts;
  for (int32_t slot = 0; slot < num_slots(); ++slot) {
    const int32_t expert = slot_to_expert_[static_cast<std::size_t>(slot)];
    slots_are_experts_ = slots_are_experts_ && expert == slot;
    if (expert < 0) continue;
    replica_slots_[static_cast<std::size_t>(next[static_cast<std::size_t>(expert)]++)] = slot;
  }
}

ExpertPlacement ExpertPlacement::contiguous(int32_t num_experts, int32_t num_ranks) {
  check_sizes(num_experts, num_ranks);
  std::vector<int32_t> slots(static_cast<std::size_t>(num_experts));
  for (int32_t expert = 0; expert < num_experts; ++expert) {
    slots[static_cast<std::size_t>(expert)] = expert;
  }
  std::vector<int32_t> offsets{0};
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    offsets.push_back(offsets.back() + num_experts / num_ranks +
                      (rank < num_experts % num_ranks ? 1 : 0));
  }
  return {num_experts, std::move(slots), std::move(offsets)};
}

ExpertPlacement ExpertPlacement::from_slots(int32_t num_experts, int32_t num_ranks,
                                            std::span<const int32_t> slot_to_expert) {
  check_sizes(num_experts, num_ranks);
  const auto num_slots = static_cast<int64_t>(slot_to_expert.size());
  check_range("num_slots", num_slots, num_experts, kMaxPlacementSlots);
  if (num_slots % num_ranks != 0) {
    refuse("num_slots is ", num_slots, ", must be a multiple of num_ranks, ", num_ranks);
  }
  for (std::size_t slot = 0; slot < slot_to_expert.size(); ++slot) {
    if (slot_to_expert[slot] < -1 || slot_to_expert[slot] >= num_experts) {
      refuse("slot_to_expert[", slot, "] is ", slot_to_expert[slot], ", must be in [-1, ",
             num_experts, ")");
    }
  }
  std::vector<int32_t> offsets;
  for (int32_t rank = 0; rank <= num_ranks; ++rank) {
    offsets.push_back(static_cast<int32_t>(num_slots / num_ranks * rank));
  }
  return {num_experts, {slot_to_expert.begin(), slot_to_expert.end()}, std::move(offsets)};
}

ExpertPlacement ExpertPlacement::from_replicas(int32_t num_experts, int32_t num_ranks,
                                               std::span<const ExpertReplica> replicas) {
  check_sizes(num_experts, num_ranks);
  check_range("number of replicas", static_cast<int64_t>(replicas.size()), num_experts,
              kMaxPlacementSlots);
  std::vector<int32_t> offsets(static_cast<std::size_t>(num_ranks) + 1);
  for (std::size_t i = 0; i < replicas.size(); ++i) {
    const auto [expert, rank] = replicas[i];
    if (expert < 0 || expert >= num_experts) {
      refuse("replicas[", i, "].expert is ", expert, ", must be in [0, ", num_experts, ")");
    }
    if (rank < 0 || rank >= num_ranks) {
      refuse("replicas[", i, "].rank is ", rank, ", must be in [0, ", num_ranks, ")");
    }
    ++offsets[static_cast<std::size_t>(rank) + 1];
  }
  for (std::size_t rank = 0; rank + 1 < offsets.size(); ++rank) offsets[rank + 1] += offsets[rank];
  std::vector<int32_t> next(offsets.begin(), offsets.end() - 1);
  std::vector<int32_t> slots(replicas.size());
  for (const auto& [expert, rank] : replicas) {
    slots[static_cast<std::size_t>(next[static_cast<std::size_t>(rank)]++)] = expert;
  }
  return {num_experts, std::move(slots), std::move(offsets)};
}

int32_t ExpertPlacement::rank_of_slot(int32_t slot) const {
  const auto after = std::upper_bound(slot_offsets_.begin(), slot_offsets_.end(), slot);
  return static_cast<int32_t>(after - slot_offsets_.begin()) - 1;
}

int32_t ExpertPlacement::num_slots_of(int32_t rank) const {
  const auto index = static_cast<std::size_t>(rank);
  return slot_offsets_[index + 1] - slot_offsets_[index];
}

uint64_t ExpertPlacement::fingerprint() const {
  nccl::Fingerprint print;
  print.add(num_experts_);
  print.add_all(slot_offsets_);
  print.add_all(slot_to_expert_);
  return print.value();
}

}  // namespace switchyard

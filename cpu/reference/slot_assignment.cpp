#include "cpu/reference/slot_assignment.h"

#include <algorithm>
#include <vector>

#include "cpu/expert_ids.h"

namespace switchyard::cpu::reference {
namespace {

class ReferenceSlotAssigner final : public SlotAssigner::Implementation {
 public:
  ReferenceSlotAssigner(const ExpertPlacement& expert_placement, int32_t slots_per_token)
      : Implementation(expert_placement, slots_per_token, Backend::kReference) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void assign(MatrixView<const int32_t> expert_ids, int32_t rank, MatrixView<int32_t> slot_ids,
              VectorView<int64_t> tokens_per_slot, std::span<std::byte>,
              StreamView) const override {
    check_expert_ids(expert_ids, placement.num_experts());
    std::fill_n(tokens_per_slot.data, tokens_per_slot.size, 0);
    std::vector<int64_t> assigned(static_cast<size_t>(placement.num_experts()), 0);
    for (int64_t token = 0; token < expert_ids.rows; ++token) {
      for (int32_t choice = 0; choice < top_k; ++choice) {
        const int32_t expert = expert_ids.row(token)[choice];
        slot_ids.row(token)[choice] = -1;
        if (expert < 0) continue;
        const auto index = static_cast<size_t>(expert);
        const auto first = static_cast<size_t>(placement.replica_offsets()[index]);
        const auto end = static_cast<size_t>(placement.replica_offsets()[index + 1]);
        const auto turn = static_cast<size_t>(assigned[index]++ + rank);
        const int32_t slot = placement.replica_slots()[first + turn % (end - first)];
        slot_ids.row(token)[choice] = slot;
        ++tokens_per_slot[slot];
      }
    }
  }
};

}  // namespace

std::unique_ptr<SlotAssigner::Implementation> make_slot_assigner(const ExpertPlacement& placement,
                                                                 int32_t top_k) {
  return std::make_unique<ReferenceSlotAssigner>(placement, top_k);
}

}  // namespace switchyard::cpu::reference

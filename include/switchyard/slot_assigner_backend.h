// What a backend implements to assign slots. SlotAssigner checks shapes first, so backends trust
// theirs; ids are theirs to check.
#pragma once

#include <utility>

#include "switchyard/slot_assigner.h"

namespace switchyard {

/// How many of an expert's first `assigned` assignments on `rank` go to its `copy`.
SWITCHYARD_HOST_DEVICE constexpr int64_t assignments_of_copy(int64_t assigned, int32_t rank,
                                                             int32_t copy, int32_t num_copies) {
  const int32_t turn = copy - rank % num_copies;  // of the copy's first assignment
  const int64_t first = turn < 0 ? turn + num_copies : turn;
  return assigned <= first ? 0 : (assigned - first - 1) / num_copies + 1;
}

class SlotAssigner::Implementation {
 public:
  Implementation(ExpertPlacement expert_placement, int32_t slots_per_token,
                 Backend assigner_backend)
      : placement(std::move(expert_placement)), top_k(slots_per_token), backend(assigner_backend) {}
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  virtual ~Implementation() = default;

  [[nodiscard]] virtual int64_t workspace_bytes(int64_t max_tokens) const = 0;
  virtual void assign(MatrixView<const int32_t> expert_ids, int32_t rank,
                      MatrixView<int32_t> slot_ids, VectorView<int64_t> tokens_per_slot,
                      std::span<std::byte> workspace, StreamView stream) const = 0;

  const ExpertPlacement placement;
  const int32_t top_k;
  const Backend backend;
};

}  // namespace switchyard

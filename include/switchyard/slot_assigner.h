// Which copy of its expert each assignment goes to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "switchyard/backend.h"
#include "switchyard/executor.h"
#include "switchyard/expert_placement.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// Turns ids of experts into ids of slots of a placement. The copies of an expert take turns: of
/// the assignments that a rank has for an expert with c copies, in (token, slot) order, the i-th
/// goes to copy (i + rank) mod c. So no two copies differ by more than one assignment of a rank,
/// and the choice depends on nothing but the ids and the rank. Thread-safe like Router.
class SlotAssigner {
 public:
  /// @param placement  at most 4096 slots (kMaxPermutationExperts).
  /// @param top_k      1 to 128 (kMaxPermutationSlots).
  /// @throws InvalidArgument  naming the argument, its value and the limit.
  /// @throws Unavailable      when this build or machine lacks `backend`.
  SlotAssigner(const ExpertPlacement& placement, int32_t top_k, Backend backend = Backend::kAuto,
               CpuThreads threads = {});
  ~SlotAssigner();
  SlotAssigner(SlotAssigner&&) noexcept;
  SlotAssigner& operator=(SlotAssigner&&) noexcept;

  [[nodiscard]] const ExpertPlacement& placement() const;
  [[nodiscard]] int32_t top_k() const;
  [[nodiscard]] Backend backend() const;

  /// Bytes of workspace, in the backend's memory, that assign() needs for up to `max_tokens`.
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const;

  /// @param expert_ids       [num_tokens, top_k]; -1 marks a padding token or an empty slot. Device
  ///                         backends take any other id outside [0, num_experts) for -1.
  /// @param rank             whose tokens these are, in [0, num_ranks).
  /// @param slot_ids         [num_tokens, top_k] id of the slot, -1 where the expert's is.
  /// @param tokens_per_slot  [num_slots] assignments that each slot gets.
  /// @param workspace        at least workspace_bytes(num_tokens), aligned to 16 bytes on devices.
  ///                         Calls in flight need one each.
  /// @throws InvalidArgument  when a shape disagrees, or (host backends) for an id out of range,
  ///                          naming token, slot and id. Nothing is written then.
  /// Neither allocates nor synchronises. T = 0 is legal.
  void assign(MatrixView<const int32_t> expert_ids, int32_t rank, MatrixView<int32_t> slot_ids,
              VectorView<int64_t> tokens_per_slot, std::span<std::byte> workspace,
              StreamView stream = {}) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard

#include "cuda/slot_assignment.h"

#include <algorithm>

#include "cuda/assignment_sort.cuh"
#include "cuda/assignment_sort.h"
#include "cuda/device_state.h"
#include "cuda/slot_assignment_kernels.cuh"
#include "cuda/workspace_parts.h"
#include "switchyard/buffer.h"

namespace switchyard::cuda {
namespace {

// What a thread block takes, unless there are so many that blocks must take more.
constexpr int64_t kBlockAssignments = 2 * kAssignThreads;

/// A placement in memory that kernels can read.
class DevicePlacement {
 public:
  explicit DevicePlacement(const ExpertPlacement& placement)
      : replica_offsets(upload(placement.replica_offsets())),
        replica_slots(upload(placement.replica_slots())),
        slot_to_expert(upload(placement.slot_to_expert())),
        slot_copies(placement.num_slots(), Backend::kCuda) {
    for (int32_t expert = 0; expert < placement.num_experts(); ++expert) {
      const int32_t first = replica_offsets[expert];
      for (int32_t i = first; i < replica_offsets[expert + 1]; ++i) {
        slot_copies[replica_slots[i]] = i - first;
      }
    }
  }

  const Buffer<int32_t> replica_offsets;
  const Buffer<int32_t> replica_slots;
  const Buffer<int32_t> slot_to_expert;
  Buffer<int32_t> slot_copies;

 private:
  static Buffer<int32_t> upload(std::span<const int32_t> values) {
    Buffer<int32_t> buffer(static_cast<int64_t>(values.size()), Backend::kCuda);
    std::copy(values.begin(), values.end(), buffer.begin());
    return buffer;
  }
};

class CudaSlotAssigner final : public SlotAssigner::Implementation {
 public:
  CudaSlotAssigner(const ExpertPlacement& expert_placement, int32_t slots_per_token)
      : Implementation(expert_placement, slots_per_token, Backend::kCuda),
        device_placement_(placement) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    WorkspaceParts parts;
    static_cast<void>(take_permutation(parts, max_tokens));
    return parts.bytes() + assignment_sort_workspace(sort_config_, max_tokens);
  }

  void assign(MatrixView<const int32_t> expert_ids, int32_t rank, MatrixView<int32_t> slot_ids,
              VectorView<int64_t> tokens_per_slot, std::span<std::byte> workspace,
              StreamView stream) const override {
    device_.check_usable(stream);
    check_matrix(device_, "expert_ids", expert_ids, alignof(int32_t));
    check_matrix(device_, "slot_ids", slot_ids, alignof(int32_t));
    check_vector(device_, "tokens_per_slot", tokens_per_slot);
    device_.check_memory("workspace", workspace.data(), WorkspaceParts::kAlignment);
    WorkspaceParts parts(workspace.data());
    const Permutation sorted = take_permutation(parts, expert_ids.rows);
    sort_assignments(sort_config_, device_, sort_args(sort_config_, expert_ids, {}, sorted),
                     workspace.data() + parts.bytes(), stream);
    AssignArgs args{};
    args.expert_ids = expert_ids;
    args.slot_ids = slot_ids;
    args.tokens_per_slot = tokens_per_slot;
    args.rank = rank;
    args.replica_offsets = device_placement_.replica_offsets.data();
    args.replica_slots = device_placement_.replica_slots.data();
    args.slot_to_expert = device_placement_.slot_to_expert.data();
    args.slot_copies = device_placement_.slot_copies.data();
    args.tokens_per_expert = sorted.tokens_per_expert.data;
    args.expert_offsets = sorted.expert_offsets.data;
    args.assignment_to_row = sorted.assignment_to_row;
    args.block_tokens =
        std::max(ceil_div(kBlockAssignments, top_k), ceil_div(expert_ids.rows, kMaxGridBlocks));
    const int64_t blocks = std::max(ceil_div(expert_ids.rows, args.block_tokens),
                                    ceil_div(tokens_per_slot.size, kAssignThreads));
    device_.check(SWITCHYARD_LAUNCH(assign_slots_kernel,
                                    {.grid = static_cast<unsigned>(blocks),
                                     .block = kAssignThreads,
                                     .stream = stream.get(),
                                     .dependent = device_.chains_launches()},
                                    args),
                  "launch of assign_slots_kernel");
  }

 private:
  /// The arrays that sorting writes.
  [[nodiscard]] Permutation take_permutation(WorkspaceParts& parts, int64_t num_tokens) const {
    const int64_t num_experts = placement.num_experts();
    const int64_t num_rows = num_tokens * top_k;
    Permutation sorted;
    sorted.tokens_per_expert = {parts.take<int64_t>(num_experts), num_experts};
    sorted.expert_offsets = {parts.take<int64_t>(num_experts + 1), num_experts + 1};
    sorted.row_to_assignment = {parts.take<int64_t>(num_rows), num_rows};
    sorted.assignment_to_row = {parts.take<int64_t>(num_rows), num_tokens, top_k};
    sorted.block_experts = {parts.take<int32_t>(num_rows), num_rows};
    sorted.totals = parts.take<PermutationTotals>(1);
    return sorted;
  }

  const DeviceState device_;
  const DevicePlacement device_placement_;
  const PermutationConfig sort_config_{.num_experts = placement.num_experts(), .top_k = top_k};
};

}  // namespace

std::unique_ptr<SlotAssigner::Implementation> make_cuda_slot_assigner(
    const ExpertPlacement& placement, int32_t top_k) {
  return std::make_unique<CudaSlotAssigner>(placement, top_k);
}

}  // namespace switchyard::cuda

// Tasks take consecutive tokens. Each counts its own assignments by expert; which copy is next when
// it begins follows from the counts of the tasks before it. So the slots are the same however the
// tokens are split.
#include "cpu/slot_assignment.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "cpu/expert_ids.h"
#include "cpu/threads.h"
#include "cpu/workspace_parts.h"

namespace switchyard::cpu {
namespace {

// Below this many assignments a second thread costs more than it saves.
constexpr int64_t kMinAssignmentsPerTask = 16384;
// Counters that a task adds to the serial part, held against the assignments it takes.
constexpr int64_t kMinAssignmentsPerCounter = 16;

/// Scratch of one call. Tables of [tasks][experts] are indexed by task first.
struct Scratch {
  Scratch(WorkspaceParts& parts, int num_tasks, int32_t num_experts)
      : counts(parts.take<int64_t>(int64_t{num_tasks} * num_experts)),
        next_slots(parts.take<int32_t>(int64_t{num_tasks} * num_experts)),
        saw_unknown_id(parts.take<bool>(num_tasks)) {}

  int64_t* counts;       // [tasks][experts]
  int32_t* next_slots;   // [tasks][experts] where the task's next assignment goes
  bool* saw_unknown_id;  // [tasks]
};

class CpuSlotAssigner final : public SlotAssigner::Implementation {
 public:
  CpuSlotAssigner(const ExpertPlacement& expert_placement, int32_t slots_per_token,
                  const CpuThreads& threads)
      : Implementation(expert_placement, slots_per_token, Backend::kCpu),
        team_(threads),
        following_(static_cast<size_t>(placement.num_slots()), -1) {
    for (int32_t expert = 0; expert < placement.num_experts(); ++expert) {
      const std::span<const int32_t> copies = copies_of(expert);
      for (size_t i = 0; i < copies.size(); ++i) {
        following_[static_cast<size_t>(copies[i])] = copies[(i + 1) % copies.size()];
      }
    }
  }

  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    WorkspaceParts parts;
    const Scratch measured(parts, count_tasks(max_tokens), placement.num_experts());
    return parts.bytes();
  }

  void assign(MatrixView<const int32_t> expert_ids, int32_t rank, MatrixView<int32_t> slot_ids,
              VectorView<int64_t> tokens_per_slot, std::span<std::byte> workspace,
              StreamView) const override {
    const int64_t num_tokens = expert_ids.rows;
    const int num_tasks = count_tasks(num_tokens);
    WorkspaceParts parts(workspace);
    const Scratch scratch(parts, num_tasks, placement.num_experts());
    team_.run(num_tokens, num_tasks, 1, [&](int64_t begin, int64_t end, int task) {
      count(expert_ids, begin, end, scratch, task);
    });
    if (std::any_of(scratch.saw_unknown_id, scratch.saw_unknown_id + num_tasks,
                    [](bool saw) { return saw; })) {
      check_expert_ids(expert_ids, placement.num_experts());
    }
    give_turns(scratch, num_tasks, rank, tokens_per_slot);
    team_.run(num_tokens, num_tasks, 1, [&](int64_t begin, int64_t end, int task) {
      if (placement.slots_are_experts()) {
        copy(expert_ids, slot_ids, begin, end);
      } else {
        place(expert_ids, slot_ids, begin, end,
              scratch.next_slots + int64_t{task} * placement.num_experts());
      }
    });
  }

 private:
  [[nodiscard]] int count_tasks(int64_t num_tokens) const {
    const int64_t grain =
        std::max(kMinAssignmentsPerTask, kMinAssignmentsPerCounter * placement.num_experts());
    return team_.num_tasks(num_tokens * top_k, grain);
  }

  [[nodiscard]] std::span<const int32_t> copies_of(int32_t expert) const {
    const auto begin =
        static_cast<size_t>(placement.replica_offsets()[static_cast<size_t>(expert)]);
    const auto end =
        static_cast<size_t>(placement.replica_offsets()[static_cast<size_t>(expert) + 1]);
    return placement.replica_slots().subspan(begin, end - begin);
  }

  void count(MatrixView<const int32_t> expert_ids, int64_t begin, int64_t end,
             const Scratch& scratch, int task) const {
    const auto num_experts = static_cast<uint32_t>(placement.num_experts());
    int64_t* const counts = scratch.counts + int64_t{task} * placement.num_experts();
    std::fill_n(counts, num_experts, 0);
    bool saw_unknown_id = false;
    for (int64_t token = begin; token < end; ++token) {
      const int32_t* ids = expert_ids.row(token);
      for (int32_t choice = 0; choice < top_k; ++choice) {
        const auto expert = static_cast<uint32_t>(ids[choice]);
        if (expert < num_experts) {
          ++counts[expert];
        } else {
          saw_unknown_id |= ids[choice] != -1;
        }
      }
    }
    scratch.saw_unknown_id[task] = saw_unknown_id;
  }

  /// Decides which copy is next for every task, and with that how many assignments each slot gets.
  void give_turns(const Scratch& scratch, int num_tasks, int32_t rank,
                  VectorView<int64_t> tokens_per_slot) const {
    const int32_t num_experts = placement.num_experts();
    std::fill_n(tokens_per_slot.data, tokens_per_slot.size, 0);  // some slots may be empty
    for (int32_t expert = 0; expert < num_experts; ++expert) {
      const std::span<const int32_t> copies = copies_of(expert);
      const auto num_copies = static_cast<int32_t>(copies.size());
      int64_t assigned = 0;
      for (int task = 0; task < num_tasks; ++task) {
        const int64_t index = int64_t{task} * num_experts + expert;
        // Most experts have one copy, and divisions would be most of what a small batch takes.
        const int64_t turn = num_copies == 1 ? 0 : (assigned + rank) % num_copies;
        scratch.next_slots[index] = copies[static_cast<size_t>(turn)];
        assigned += scratch.counts[index];
      }
      if (num_copies == 1) {
        tokens_per_slot[copies[0]] = assigned;
        continue;
      }
      for (int32_t copy = 0; copy < num_copies; ++copy) {
        tokens_per_slot[copies[static_cast<size_t>(copy)]] =
            assignments_of_copy(assigned, rank, copy, num_copies);
      }
    }
  }

  void place(MatrixView<const int32_t> expert_ids, MatrixView<int32_t> slot_ids, int64_t begin,
             int64_t end, int32_t* next_slots) const {
    const int32_t* const following = following_.data();
    for (int64_t token = begin; token < end; ++token) {
      const int32_t* experts = expert_ids.row(token);
      int32_t* slots = slot_ids.row(token);
      for (int32_t choice = 0; choice < top_k; ++choice) {
        const int32_t expert = experts[choice];
        int32_t slot = -1;
        if (expert >= 0) slot = std::exchange(next_slots[expert], following[next_slots[expert]]);
        slots[choice] = slot;
      }
    }
  }

  void copy(MatrixView<const int32_t> expert_ids, MatrixView<int32_t> slot_ids, int64_t begin,
            int64_t end) const {
    for (int64_t token = begin; token < end; ++token) {
      std::copy_n(expert_ids.row(token), top_k, slot_ids.row(token));
    }
  }

  const ThreadTeam team_;
  std::vector<int32_t> following_;  // [slots] the slot of the same expert whose turn is next
};

}  // namespace

std::unique_ptr<SlotAssigner::Implementation> make_cpu_slot_assigner(
    const ExpertPlacement& placement, int32_t top_k, const CpuThreads& threads) {
  return std::make_unique<CpuSlotAssigner>(placement, top_k, threads);
}

}  // namespace switchyard::cpu

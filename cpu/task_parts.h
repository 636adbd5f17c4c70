// A range of items in parts that tasks take as they get to them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "cpu/threads.h"

namespace switchyard::cpu {

/// Each task has a share of its own, the same in every call, so that what a core wrote last time it
/// writes again, and takes from the others' only when it is done with that. Parts shrink towards
/// the end of a share: a task that began late, or is held up, leaves more of it to the others.
class TaskParts {
 public:
  /// For items [0, num_items), cut at multiples of `unit` into parts of `least` units or more; what
  /// is left of a unit at the end belongs to the one before it.
  TaskParts(int64_t num_items, int num_tasks, int64_t unit, int64_t least)
      : num_items_(num_items),
        num_units_(std::max<int64_t>(num_items / unit, num_items > 0 ? 1 : 0)),
        unit_(unit),
        least_(least),
        num_tasks_(num_tasks) {
    for (int task = 0; task < num_tasks; ++task) next_[task].unit = first_unit(task);
  }

  /// Calls visit(begin, end) for parts that no other task takes, until none is left.
  template <typename Visit>
  void visit(int task, const Visit& visit) {
    for (int i = 0; i < num_tasks_; ++i) {
      const int owner = (task + i) % num_tasks_;
      const int64_t end = first_unit(owner + 1);
      const std::atomic_ref<int64_t> next(next_[owner].unit);
      for (int64_t begin = next.load(std::memory_order_relaxed); begin < end;) {
        const int64_t after = std::min(end, begin + std::max(least_, (end - begin) / 2));
        if (!next.compare_exchange_weak(begin, after, std::memory_order_relaxed)) continue;
        visit(begin * unit_, after == num_units_ ? num_items_ : after * unit_);
        begin = next.load(std::memory_order_relaxed);
      }
    }
  }

 private:
  // A line of its own, for tasks count up theirs at the same time.
  struct alignas(64) Next {
    int64_t unit;
  };

  [[nodiscard]] int64_t first_unit(int task) const { return num_units_ * task / num_tasks_; }

  int64_t num_items_;
  int64_t num_units_;
  int64_t unit_;
  int64_t least_;
  int num_tasks_;
  Next next_[ThreadTeam::kMaxTasks];  // only those of the tasks are ever touched
};

}  // namespace switchyard::cpu

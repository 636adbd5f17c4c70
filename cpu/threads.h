// Splits a range over the threads that the caller chose, or runs it at once where it is small.
#pragma once

#include <algorithm>
#include <cstdint>

#include "switchyard/executor.h"

namespace switchyard::cpu {

class ThreadTeam {
 public:
  /// At most this many tasks; callers size per-task memory by it.
  static constexpr int kMaxTasks = 256;

  /// @throws InvalidArgument  for a negative number of threads.
  explicit ThreadTeam(const CpuThreads& threads);

  /// Tasks into which `num_items` are split when each should get at least `grain` of them.
  [[nodiscard]] int num_tasks(int64_t num_items, int64_t grain) const {
    const int64_t wanted = num_items / std::max<int64_t>(grain, 1);
    return static_cast<int>(std::clamp<int64_t>(wanted, 1, max_tasks_));
  }

  /// First item of `task`; multiples of `unit` but for the last end.
  static int64_t first_item(int64_t num_items, int task, int num_tasks, int64_t unit) {
    const int64_t units = (num_items + unit - 1) / unit;
    return std::min(num_items, units * task / num_tasks * unit);
  }

  /// Calls body(begin, end, task) for `num_tasks` consecutive parts of [0, num_items), cut at
  /// multiples of `unit`. One task runs on the calling thread without touching any pool.
  template <typename Body>
  void run(int64_t num_items, int num_tasks, int64_t unit, const Body& body) const {
    if (num_tasks <= 1) {
      body(int64_t{0}, num_items, 0);
      return;
    }
    struct Context {
      const Body& body;
      int64_t num_items;
      int num_tasks;
      int64_t unit;
    } context{body, num_items, num_tasks, unit};
    dispatch(
        num_tasks,
        [](void* raw, int task) {
          const auto& c = *static_cast<const Context*>(raw);
          c.body(first_item(c.num_items, task, c.num_tasks, c.unit),
                 first_item(c.num_items, task + 1, c.num_tasks, c.unit), task);
        },
        &context);
  }

  [[nodiscard]] int max_tasks() const { return max_tasks_; }

 private:
  void dispatch(int num_tasks, Executor::Task task, void* context) const;

  Executor* executor_;
  int max_tasks_;
};

}  // namespace switchyard::cpu

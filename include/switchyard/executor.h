// Threads for the CPU backend: its own (OpenMP where built with it) or a pool of the caller's.
#pragma once

#include <cstdint>

namespace switchyard {

/// A pool that the caller lends to the CPU backend.
class Executor {
 public:
  using Task = void (*)(void* context, int task);

  Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  virtual ~Executor() = default;

  /// How many tasks can make progress at once; at least 1.
  [[nodiscard]] virtual int concurrency() const = 0;

  /// Calls `task(context, i)` once for every i in [0, num_tasks), in any order, on any threads, and
  /// returns when all have returned. Tasks do not throw and do not wait for one another.
  virtual void parallel_for(int num_tasks, Task task, void* context) = 0;
};

/// Where the CPU backend runs. Results never depend on it.
struct CpuThreads {
  int num_threads = 0;           ///< at most this many threads; 0: as many as the machine offers
  Executor* executor = nullptr;  ///< used instead of OpenMP where given; must outlive its users
};

}  // namespace switchyard

// Every way in which the backends under test can run on this machine. Each program links the
// definition that suits its backends.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "switchyard/executor.h"
#include "switchyard/router.h"

namespace switchyard::test {

/// The instruction sets, as Highway's bits, that this machine has and Highway can be told to use.
std::vector<int64_t> cpu_targets();

/// Lets Highway choose only `target`, or any where it is 0, while it lives. Not for concurrent use.
class ScopedCpuTarget {
 public:
  explicit ScopedCpuTarget(int64_t target);
  ScopedCpuTarget(const ScopedCpuTarget&) = delete;
  ScopedCpuTarget& operator=(const ScopedCpuTarget&) = delete;
  ~ScopedCpuTarget();
};

/// A pool of standard threads that runs tasks last one first, so that order shows.
class ThreadPool final : public Executor {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool() override;

  [[nodiscard]] int concurrency() const override;
  void parallel_for(int num_tasks, Task task, void* context) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The CPU backend with a target and a number of threads, or another backend. The pool lives as
/// long as the program.
struct BackendVariant {
  std::string name;
  Backend backend = Backend::kCpu;
  int64_t target = 0;  ///< as for ScopedCpuTarget; 0: any
  CpuThreads threads;
};

/// Of the CPU: all targets times 1, 2 and 5 threads, and the best one with threads of its own.
const std::vector<BackendVariant>& backend_variants();

}  // namespace switchyard::test

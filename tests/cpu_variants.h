// Every way in which the CPU backend can run on this machine: instruction sets and thread counts.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "switchyard/executor.h"

namespace switchyard::test {

/// The instruction sets, as Highway's bits, that this machine has and Highway can be told to use.
std::vector<int64_t> cpu_targets();

/// Lets Highway choose only `target` while it lives. Not for concurrent use.
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

/// A target and a number of threads. The pool lives as long as the program.
struct CpuVariant {
  std::string name;
  int64_t target = 0;
  CpuThreads threads;
};

/// All targets times 1, 2 and 5 threads, and the best one with threads of the backend's own.
const std::vector<CpuVariant>& cpu_variants();

}  // namespace switchyard::test

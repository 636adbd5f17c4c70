#include "tests/backend_variants.h"

#include <condition_variable>
#include <mutex>
#include <thread>

#include "hwy/highway.h"

namespace switchyard::test {

std::vector<int64_t> cpu_targets() {
  std::vector<int64_t> targets;
  for (int64_t left = hwy::SupportedTargets() & HWY_TARGETS; left != 0; left &= left - 1) {
    targets.push_back(left & -left);
  }
  return targets;
}

ScopedCpuTarget::ScopedCpuTarget(int64_t target) { hwy::DisableTargets(target == 0 ? 0 : ~target); }

ScopedCpuTarget::~ScopedCpuTarget() { hwy::DisableTargets(0); }

struct ThreadPool::State {
  std::mutex mutex;
  std::condition_variable work_or_stop;
  std::condition_variable done;
  Task task = nullptr;
  void* context = nullptr;
  int unclaimed = 0;
  int unfinished = 0;
  bool stop = false;
  std::vector<std::thread> threads;

  void work() {
    std::unique_lock lock(mutex);
    while (true) {
      work_or_stop.wait(lock, [&] { return stop || unclaimed > 0; });
      if (stop) return;
      const int mine = --unclaimed;
      lock.unlock();
      task(context, mine);
      lock.lock();
      if (--unfinished == 0) done.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  for (int i = 0; i < num_threads; ++i) {
    state_->threads.emplace_back([this] { state_->work(); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(state_->mutex);
    state_->stop = true;
  }
  state_->work_or_stop.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

int ThreadPool::concurrency() const { return static_cast<int>(state_->threads.size()); }

void ThreadPool::parallel_for(int num_tasks, Task task, void* context) {
  if (num_tasks <= 0) return;
  std::unique_lock lock(state_->mutex);
  state_->task = task;
  state_->context = context;
  state_->unclaimed = num_tasks;
  state_->unfinished = num_tasks;
  state_->work_or_stop.notify_all();
  state_->done.wait(lock, [&] { return state_->unfinished == 0; });
}

}  // namespace switchyard::test

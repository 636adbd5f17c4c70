#include "cpu/threads.h"

#ifdef SWITCHYARD_OPENMP
#include <omp.h>
#endif

#include "cpu/refuse.h"

namespace switchyard::cpu {
namespace {

int available_threads(const Executor* executor) {
  if (executor != nullptr) return executor->concurrency();
#ifdef SWITCHYARD_OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

}  // namespace

ThreadTeam::ThreadTeam(const CpuThreads& threads) : executor_(threads.executor) {
  if (threads.num_threads < 0)
    refuse("num_threads is ", threads.num_threads, ", must be 0 or more");
  const int available = available_threads(executor_);
#ifdef SWITCHYARD_OPENMP
  // OpenMP starts as many threads as it is asked for, so an explicit number is taken at its word.
  const bool honour_request = executor_ == nullptr;
#else
  const bool honour_request = false;
#endif
  int count = threads.num_threads == 0 ? available : threads.num_threads;
  if (!honour_request) count = std::min(count, available);
  max_tasks_ = std::clamp(count, 1, kMaxTasks);
}

void ThreadTeam::dispatch(int num_tasks, Executor::Task task, void* context) const {
  if (executor_ != nullptr) {
    executor_->parallel_for(num_tasks, task, context);
    return;
  }
#ifdef SWITCHYARD_OPENMP
#pragma omp parallel for num_threads(num_tasks) schedule(static, 1)
  for (int i = 0; i < num_tasks; ++i) task(context, i);
#else
  for (int i = 0; i < num_tasks; ++i) task(context, i);
#endif
}

}  // namespace switchyard::cpu

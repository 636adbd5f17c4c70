#include "tests/simt/scheduler.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "tests/simt/builtins.h"
#include "tests/simt/device_hooks.h"
#include "tests/simt/executor.h"
#include "tests/simt/race_observer.h"
#include "tests/simt/shared_memory.h"

// NOLINTBEGIN(readability-identifier-naming)
uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;
// NOLINTEND(readability-identifier-naming)

namespace switchyard::simt {

Cluster cluster;
Block* block = cluster.blocks;
Thread* current = nullptr;
bool is_executor_running = false;
Statistics totals;
test::RandomStream choices(1);
RaceObserver* race_observer = nullptr;

namespace {

const KernelCall* kernel_call = nullptr;

unsigned num_turns = 0;  // of threads that gave way to another block

/// nullptr is the host.
void switch_to(Thread* next) {
  Thread* self = current;
  if (next == self) return;
  ++totals.switches;
  current = next;
  if (next != nullptr) {
    block = &cluster.blocks[next->rank];
    blockIdx = block->position;
    threadIdx = next->position;
  }
  switch_fiber(self != nullptr ? &self->fiber : nullptr, next != nullptr ? &next->fiber : nullptr);
}

int pick_lane(unsigned lanes) {
  switch (settings().order) {
    case Order::kForward:
      return std::countr_zero(lanes);
    case Order::kReverse:
      return kLanes - 1 - std::countl_zero(lanes);
    case Order::kRandom:
      break;
  }
  for (int64_t skip = choices.below(std::popcount(lanes)); skip > 0; --skip) lanes &= lanes - 1;
  return std::countr_zero(lanes);
}

Thread* ready_thread(int warp) {
  return &block->threads[warp * kLanes + pick_lane(block->warps[warp].ready)];
}

/// Resolves one opportunistic meeting, which has no set of lanes to wait for.
bool resolve_active_mask(int warp) {
  for (int i = 0; i < block->warps[warp].num_meetings; ++i) {
    if (block->warps[warp].meetings[i].collective != Collective::kActiveMask) continue;
    complete_meeting(warp, i);
    return true;
  }
  return false;
}

Thread* thread_by_priority() {
  if (choices.chance(1)) {
    std::swap(block->warps_by_priority[choices.below(block->num_warps)],
              block->warps_by_priority[choices.below(block->num_warps)]);
  }
  for (int i = 0; i < block->num_warps; ++i) {
    const int warp = block->warps_by_priority[i];
    if (block->warps[warp].ready != 0) return ready_thread(warp);
  }
  return nullptr;
}

/// A thread of the next warp that has one ready; `warp` itself comes last.
Thread* thread_of_another_warp(int warp) {
  const Order order = settings().order;
  const int step = order == Order::kReverse ? block->num_warps - 1 : 1;
  int candidate = order == Order::kRandom ? static_cast<int>(choices.below(block->num_warps))
                                          : (warp + step) % block->num_warps;
  for (int i = 0; i < block->num_warps; ++i) {
    if (block->warps[candidate].ready != 0) return ready_thread(candidate);
    candidate = (candidate + step) % block->num_warps;
  }
  return nullptr;
}

/// The block's next thread when one of `warp` stops; nullptr when none can run.
Thread* pick_in_block(int warp, bool leave_warp) {
  const bool random = settings().order == Order::kRandom;
  if (block->warps[warp].ready == 0) resolve_active_mask(warp);
  if (random && block->has_priorities && !leave_warp) {
    if (Thread* thread = thread_by_priority()) return thread;
  }
  const bool stay = block->warps[warp].ready != 0 && !leave_warp;
  if (stay && !(random && choices.chance(25))) return ready_thread(warp);
  if (Thread* thread = thread_of_another_warp(warp)) return thread;
  for (int other = 0; other < block->num_warps; ++other) {
    if (resolve_active_mask(other)) return ready_thread(other);
  }
  return nullptr;
}

/// A thread of the next block that has one ready, from `first_warp` on.
Thread* thread_of_another_block(int first_warp) {
  Block* const own = block;
  const Order order = settings().order;
  const int step = order == Order::kReverse ? cluster.num_blocks - 1 : 1;
  int candidate = order == Order::kRandom ? static_cast<int>(choices.below(cluster.num_blocks))
                                          : (own->rank + step) % cluster.num_blocks;
  Thread* found = nullptr;
  for (int i = 0; i < cluster.num_blocks && found == nullptr; ++i) {
    block = &cluster.blocks[candidate];
    if (block != own) found = pick_in_block(first_warp, false);
    candidate = (candidate + step) % cluster.num_blocks;
  }
  block = own;
  return found;
}

int first_warp() { return settings().order == Order::kReverse ? block->num_warps - 1 : 0; }

/// The next thread when one of `warp` stops; nullptr when none of the cluster can run.
Thread* pick_thread(int warp) {
  if (cluster.num_blocks == 1) return pick_in_block(warp, false);
  constexpr int kPercentLeaving = 10;
  const bool stay = settings().order != Order::kRandom || !choices.chance(kPercentLeaving);
  if (stay) {
    if (Thread* thread = pick_in_block(warp, false)) return thread;
  }
  if (Thread* thread = thread_of_another_block(first_warp())) return thread;
  return stay ? nullptr : pick_in_block(warp, false);
}

/// The next thread when one of `warp` gives way, so that all warps of all blocks get their turns.
Thread* pick_other_thread(int warp) {
  constexpr unsigned kTurns = 4;  // in a block
  if (cluster.num_blocks > 1 && ++num_turns % kTurns == 0) {
    const auto warps = static_cast<unsigned>(block->num_warps);
    const auto first = static_cast<int>(num_turns / kTurns % warps);
    if (Thread* thread = thread_of_another_block(first)) return thread;
  }
  if (Thread* thread = pick_in_block(warp, true)) return thread;
  return cluster.num_blocks > 1 ? thread_of_another_block(first_warp()) : nullptr;
}

/// Takes the running thread out of the block; comes back when the next block starts it.
void exit_thread() {
  Thread& self = *current;
  cluster.idle_atomics = 0;
  exit_meetings(self);
  exit_at_barrier(self);
  exit_at_cluster_barrier(self);
  self.state = ThreadState::kExited;
  Warp& warp = block->warps[self.warp()];
  warp.live &= ~self.bit();
  warp.ready &= ~self.bit();
  if (--block->num_live == 0) end_shared_memory();
  leave();
}

}  // namespace

const Statistics& statistics() { return totals; }

void set_kernel_call(const KernelCall* call) { kernel_call = call; }

void run_fiber() {
  enter_fiber();
  for (;;) {
    is_executor_running = false;
    kernel_call->run_thread();
    is_executor_running = true;
    exit_thread();
  }
}

void begin_block_schedule() {
  block->barrier.num_arrived = 0;
  block->num_live = block->num_threads;
  block->first_exited = -1;
  for (int i = 0; i < block->num_threads; ++i) {
    Thread& thread = block->threads[i];
    thread.state = ThreadState::kReady;
    thread.num_arrivals = thread.num_waits = 0;
  }
  for (int i = 0; i < block->num_warps; ++i) {
    const int lanes = std::min(kLanes, block->num_threads - i * kLanes);
    Warp& warp = block->warps[i];
    warp.existing = lanes == kLanes ? ~0u : (1u << lanes) - 1;
    warp.live = warp.ready = warp.existing;
    warp.num_meetings = 0;
  }
  if (settings().order != Order::kRandom) return;
  int* const warps = block->warps_by_priority;
  block->has_priorities = choices.below(3) != 0;
  std::iota(warps, warps + block->num_warps, 0);
  for (int i = block->num_warps - 1; i > 0; --i) {
    std::swap(warps[i], warps[choices.below(i + 1)]);
  }
}

void run_threads() {
  switch_to(pick_in_block(first_warp(), false));
  if (has_fault()) return;
  for (int i = 0; i < cluster.num_blocks; ++i) {
    if (cluster.blocks[i].num_live == 0) continue;
    record_fault(FaultKind::kDeadlock, describe_block() + "no thread can run" + describe_waiting());
    return;
  }
}

void leave() { switch_to(has_fault() ? nullptr : pick_thread(current->warp())); }

void yield() {
  const ExecutorScope scope;
  if (current == nullptr) return;
  if (has_fault()) leave();
  if (cluster.idle_atomics > settings().max_idle_atomics) {
    record_fault(FaultKind::kLivelock,
                 where() + std::to_string(cluster.idle_atomics) +
                     " atomics in a row changed nothing; clusters of blocks run one at a time, "
                     "so none may wait for another" +
                     describe_waiting());
    abandon();
  }
  const Thread& self = *current;
  Warp& warp = block->warps[self.warp()];
  // Fair to its warp first: whoever it waits for may be a later lane.
  const unsigned later_lanes = warp.ready & ~(self.bit() | (self.bit() - 1));
  warp.ready &= ~self.bit();
  Thread* next = nullptr;
  if (settings().order != Order::kRandom && later_lanes != 0) {
    next = &block->threads[self.warp() * kLanes + std::countr_zero(later_lanes)];
  } else {
    next = pick_other_thread(self.warp());
  }
  warp.ready |= self.bit();
  if (next != nullptr) switch_to(next);
}

void pause() {
  const ExecutorScope scope;
  constexpr int64_t kAtomics = 64;  // that it stands for
  cluster.idle_atomics += kAtomics;
  yield();
}

void give_way() {
  const ExecutorScope scope;
  const int one_in = settings().preempt_one_in;
  if (one_in > 0 && choices.below(one_in) == 0) yield();
}

void before_atomic(const void* address, size_t bytes, CallSite site) {
  const ExecutorScope scope;
  give_way();
  if (race_observer != nullptr) race_observer->atomic(address, bytes, site);
}

void after_atomic(bool changed) {
  constexpr int64_t kPatience = 64;  // atomics without effect before another thread gets its turn
  if (changed) {
    cluster.idle_atomics = 0;
  } else if (++cluster.idle_atomics % kPatience == 0) {
    yield();
  }
}

void memory_fence() {
  const ExecutorScope scope;
  if (race_observer != nullptr) race_observer->fence();
}

void wait_for_previous_grid() {
  const ExecutorScope scope;
  if (race_observer != nullptr) race_observer->waited_for_previous_grid();
}

void let_next_grid_start() {
  const ExecutorScope scope;
  if (race_observer != nullptr) race_observer->let_next_grid_start();
}

int64_t clock() { return totals.switches; }

bool sees_accesses() { return race_observer != nullptr; }

bool is_on_running_stack(const void* address) {
  const auto* byte = static_cast<const char*>(address);
  return current != nullptr && byte >= current->fiber.stack &&
         byte < current->fiber.stack + kStackBytes;
}

int running_thread() { return current != nullptr ? current->index : -1; }

int64_t running_block() {
  return (static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
}

}  // namespace switchyard::simt

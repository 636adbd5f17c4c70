// The block's barrier.
#include "tests/simt/block.h"
#include "tests/simt/device_hooks.h"
#include "tests/simt/executor.h"
#include "tests/simt/race_observer.h"

namespace switchyard::simt {
namespace {

std::string describe_call(Collective collective, CallSite site) {
  return std::string(to_string(collective)) + "() at " + to_string(site);
}

/// "3 thread(s), first thread (0,0,0) …, wait in __syncthreads() at file:line".
std::string describe(const Barrier& barrier) {
  return std::to_string(barrier.num_arrived) + " thread(s), first " +
         describe(block->threads[barrier.first_thread]) + ", wait in " +
         describe_call(barrier.collective, barrier.site);
}

int outcome(const Barrier& barrier) {
  switch (barrier.collective) {
    case Collective::kBarrierCount:
      return barrier.count;
    case Collective::kBarrierAnd:
      return barrier.count == barrier.num_arrived ? 1 : 0;
    case Collective::kBarrierOr:
      return barrier.count > 0 ? 1 : 0;
    default:
      return 0;
  }
}

void release(Barrier& barrier) {
  const auto result = static_cast<uint64_t>(outcome(barrier));
  for (int i = 0; i < block->num_threads; ++i) {
    block->threads[i].state = ThreadState::kReady;
    block->threads[i].result = result;
  }
  for (int warp = 0; warp < block->num_warps; ++warp) {
    block->warps[warp].ready = block->warps[warp].live;
  }
  barrier.num_arrived = 0;
  ++totals.barriers;
  cluster.idle_atomics = 0;
  if (race_observer != nullptr) race_observer->barrier();
}

}  // namespace

int meet_block(Collective collective, int predicate, CallSite site) {
  const ExecutorScope scope;
  if (current == nullptr) {
    throw Fault(FaultKind::kBadLaunch, describe_call(collective, site) + " outside a kernel");
  }
  if (has_fault()) leave();
  Thread& self = *current;
  Barrier& barrier = block->barrier;
  self.collective = collective;
  self.site = site;
  if (block->first_exited >= 0) {
    record_fault(FaultKind::kBarrierDivergence,
                 where() + "waits in " + describe_call(collective, site) + ", but " +
                     describe(block->threads[block->first_exited]) + " has exited and never will" +
                     describe_waiting());
    abandon();
  }
  if (barrier.num_arrived == 0) {
    barrier = {0, self.index, site, collective, 0};
  } else if (collective != barrier.collective || !(site == barrier.site)) {
    record_fault(
        FaultKind::kBarrierDivergence,
        where() + "waits in " + describe_call(collective, site) + " while " + describe(barrier));
    abandon();
  }
  ++barrier.num_arrived;
  barrier.count += predicate != 0 ? 1 : 0;
  self.state = ThreadState::kAtBarrier;
  block->warps[self.warp()].ready &= ~self.bit();
  const bool complete = barrier.num_arrived == block->num_live;
  if (complete) release(barrier);
  // In a forward order the last to arrive may as well go on.
  if (!complete || settings().order != Order::kForward) leave();
  return static_cast<int>(self.result);
}

void exit_at_barrier(const Thread& thread) {
  if (block->first_exited < 0) block->first_exited = thread.index;
  if (block->barrier.num_arrived == 0) return;
  record_fault(FaultKind::kBarrierDivergence,
               where() + "exits while " + describe(block->barrier) + describe_waiting());
  abandon();
}

}  // namespace switchyard::simt

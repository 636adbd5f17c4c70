// The barrier of a cluster's blocks.
#include "tests/simt/block.h"
#include "tests/simt/device_hooks.h"
#include "tests/simt/executor.h"
#include "tests/simt/race_observer.h"
#include "tests/simt/shared_memory.h"

namespace switchyard::simt {
namespace {

std::string describe_arrival(CallSite site) { return "arrive_at_cluster() at " + to_string(site); }

/// "3 thread(s), first thread (0,0,0) … of block (0,0,0), have come to arrive_at_cluster() at …".
std::string describe(const ClusterBarrier& barrier) {
  return std::to_string(barrier.num_arrived) + " thread(s), first " + describe(*barrier.first) +
         describe_block_of(*barrier.first) + ", have come to " + describe_arrival(barrier.site);
}

/// The caller abandons the block then, in a statement of its own: texts at hand would leak.
void record_divergence(const std::string& text) {
  record_fault(FaultKind::kBarrierDivergence, where() + text + describe_waiting());
}

int num_threads() {
  return cluster.num_blocks * block->num_threads;  // all of them: nobody has exited
}

void complete(ClusterBarrier& barrier) {
  barrier.num_arrived = 0;
  if (++barrier.num_completed == 1 && cluster.num_blocks > 1) open_shared_memory();
  for (int rank = 0; rank < cluster.num_blocks; ++rank) {
    Block& member = cluster.blocks[rank];
    for (int i = 0; i < member.num_threads; ++i) {
      Thread& thread = member.threads[i];
      if (thread.state != ThreadState::kAtClusterBarrier) continue;
      thread.state = ThreadState::kReady;
      member.warps[thread.warp()].ready |= thread.bit();
    }
  }
  ++totals.barriers;
  cluster.idle_atomics = 0;
}

}  // namespace

unsigned cluster_rank() { return static_cast<unsigned>(block->rank); }

unsigned cluster_size() { return static_cast<unsigned>(cluster.num_blocks); }

void arrive_at_cluster(CallSite site) {
  const ExecutorScope scope;
  if (current == nullptr) {
    throw Fault(FaultKind::kBadLaunch, describe_arrival(site) + " outside a kernel");
  }
  if (has_fault()) leave();
  Thread& self = *current;
  ClusterBarrier& barrier = cluster.barrier;
  if (cluster.first_exited != nullptr) {
    record_divergence("comes to " + describe_arrival(site) + ", but " +
                      describe(*cluster.first_exited) + describe_block_of(*cluster.first_exited) +
                      " has exited and never will");
    abandon();
  }
  if (self.num_arrivals != self.num_waits) {
    record_divergence("comes to " + describe_arrival(site) +
                      " and has not waited since it came before");
    abandon();
  }
  if (barrier.num_arrived == 0) {
    barrier.first = &self;
    barrier.site = site;
  } else if (!(site == barrier.site)) {
    record_divergence("comes to " + describe_arrival(site) + " while " + describe(barrier));
    abandon();
  }
  ++barrier.num_arrived;
  ++self.num_arrivals;
  if (barrier.num_arrived == num_threads()) complete(barrier);
}

void wait_for_cluster(CallSite site) {
  const ExecutorScope scope;
  if (current == nullptr) {
    throw Fault(FaultKind::kBadLaunch,
                "wait_for_cluster() at " + to_string(site) + " outside a kernel");
  }
  if (has_fault()) leave();
  Thread& self = *current;
  if (self.num_arrivals == self.num_waits) {
    record_divergence("waits in wait_for_cluster() at " + to_string(site) +
                      " and has not arrived before");
    abandon();
  }
  if (cluster.barrier.num_completed < self.num_arrivals) {
    self.site = site;
    self.state = ThreadState::kAtClusterBarrier;
    block->warps[self.warp()].ready &= ~self.bit();
    leave();
  }
  ++self.num_waits;
  if (race_observer != nullptr) race_observer->waited_for_cluster();
}

void exit_at_cluster_barrier(const Thread& thread) {
  if (cluster.first_exited == nullptr) cluster.first_exited = &thread;
  const bool awaited =
      cluster.barrier.num_arrived > 0 && thread.num_arrivals == cluster.barrier.num_completed;
  if (!awaited) return;
  record_divergence("exits while " + describe(cluster.barrier));
  abandon();
}

}  // namespace switchyard::simt

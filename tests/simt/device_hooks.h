// What the host forms of CUDA's device functions ask of the executor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/simt/call_site.h"
#include "tests/simt/collective.h"
#include "tests/simt/fault.h"

/// Atomics report themselves, with their source line; the compiler's instrumentation would report
/// them once more, as plain accesses.
#define SIMT_UNINSTRUMENTED __attribute__((no_sanitize("thread")))

namespace switchyard::simt {

/// Meets the other lanes in `mask`. `value` holds the bits of what the lane gives, `argument` the
/// source lane or distance of a shuffle and `width` its segment; returns the bits for this lane.
uint64_t meet_warp(Collective collective, unsigned mask, uint64_t value, int argument, int width,
                   CallSite site);

/// Meets the other threads of the block; returns their count, conjunction or disjunction.
int meet_block(Collective collective, int predicate, CallSite site);

/// Lets another thread of the block run.
void yield();

/// Yields at one in Settings::preempt_one_in of its calls.
void give_way();

/// Stands before every atomic.
void before_atomic(const void* address, size_t bytes, CallSite site);

/// Stands behind every atomic: many that change nothing, one after the other, are a livelock.
void after_atomic(bool changed);

void memory_fence();

/// A kernel waits for the one before it, which is done here anyway; those who watch want to know.
void wait_for_previous_grid();
void let_next_grid_start();

/// A wait that a kernel asks for; counts as many atomics without effect.
void pause();

/// The array of this block that `key` stands for; made when the first thread asks.
void* static_shared(const void* key, size_t bytes, size_t alignment, const char* name);
void* dynamic_shared();

/// Where another block of the cluster has what this block has at `address`, in shared memory.
void* shared_of_block(const void* address, unsigned rank);
unsigned cluster_rank();
unsigned cluster_size();
/// The two steps of the cluster's barrier: nobody comes out of the second before all threads of all
/// blocks have taken the first.
void arrive_at_cluster(CallSite site = CallSite::here());
/// The same here: what these leave out is not modelled.
inline void arrive_at_cluster_relaxed(CallSite site = CallSite::here()) { arrive_at_cluster(site); }
inline void arrive_at_cluster_shared(CallSite site = CallSite::here()) { arrive_at_cluster(site); }
void wait_for_cluster(CallSite site = CallSite::here());

/// Grows while kernels run.
int64_t clock();

/// Ends the launch.
[[noreturn]] void trap();

[[noreturn]] void refuse_alignment(const void* address, size_t bytes);

/// A GPU stops at an access that is not aligned to its size; the host's processor does not.
inline void require_alignment(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) refuse_alignment(address, bytes);
}

}  // namespace switchyard::simt

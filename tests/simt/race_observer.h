// What the race detector learns from the executor. Without it, as in every build whose kernels are
// not instrumented, there is no observer.
#pragma once

#include <cstddef>

#include "tests/simt/call_site.h"

namespace switchyard::simt {

struct Launch;

class RaceObserver {
 public:
  virtual ~RaceObserver() = default;

  virtual void begin_launch(const Launch& launch) = 0;
  virtual void end_launch() = 0;
  virtual void begin_cluster() = 0;
  virtual void shared_array(const void* address, size_t bytes, const char* name) = 0;

  virtual void barrier() = 0;
  /// The running thread has waited once more at its cluster's barrier.
  virtual void waited_for_cluster() = 0;
  virtual void warp_barrier(int warp, unsigned lanes) = 0;
  virtual void atomic(const void* address, size_t bytes, CallSite site) = 0;
  virtual void fence() = 0;
  /// The running thread knows that the launch before its own is done, or lets the next one start.
  virtual void waited_for_previous_grid() = 0;
  virtual void let_next_grid_start() = 0;

  virtual void allocated(const void* address, size_t bytes) = 0;
  virtual void freed(const void* address) = 0;
  /// The host or a copy has written there.
  virtual void initialized(const void* address, size_t bytes) = 0;
};

extern RaceObserver* race_observer;  ///< nullptr where nobody watches

}  // namespace switchyard::simt

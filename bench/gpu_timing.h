// Times calls on a GPU as a server makes them: captured once, replayed as a graph.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "switchyard/stream.h"

namespace switchyard::bench {

struct TimedCall {
  std::string name;
  int64_t bytes = 0;  ///< that a call must read and write
  /// Enqueues the call for one of its sets of buffers; `copy` counts up without end.
  std::function<void(int copy, StreamView stream)> enqueue;
};

struct ReplayOptions {
  int calls = 32;    ///< of a graph
  int replays = 4;   ///< between two events
  int repeats = 11;  ///< of every call, interleaved; the median counts
};

/// Median microseconds of one call of each.
/// @throws std::runtime_error  naming the CUDA call that failed.
std::vector<double> time_interleaved(const std::vector<TimedCall>& calls,
                                     const ReplayOptions& options);

}  // namespace switchyard::bench

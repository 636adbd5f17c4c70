// The copies that a rank makes in one turn for the others to read in the next.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstring>

#include "nccl/copy_route.h"
#include "switchyard/stream_copy.h"

namespace switchyard::nccl {

/// Tells the route what they took when it goes.
class TurnCopies {
 public:
  /// @param num_bytes  of all of them.
  TurnCopies(CopyRoute& route, int64_t num_bytes)
      : route_(route), num_bytes_(num_bytes), passes_caches_(route.passes_caches(num_bytes)) {}
  TurnCopies(const TurnCopies&) = delete;
  TurnCopies& operator=(const TurnCopies&) = delete;
  ~TurnCopies() {
    if (passes_caches_) return;
    route_.learn(num_bytes_, std::chrono::duration<double>(Clock::now() - begin_).count());
  }

  void copy(std::byte* to, const std::byte* from, int64_t num_bytes) const {
    if (passes_caches_) return stream_copy(to, from, num_bytes);
    std::memcpy(to, from, static_cast<std::size_t>(num_bytes));
  }

 private:
  using Clock = std::chrono::steady_clock;

  CopyRoute& route_;
  int64_t num_bytes_;
  bool passes_caches_;
  Clock::time_point begin_ = Clock::now();
};

}  // namespace switchyard::nccl

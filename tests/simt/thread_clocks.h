// What orders the accesses of threads: barriers, __syncwarp, ends of blocks and of launches, and a
// fence with an atomic on the same word. Shuffles and votes order nothing, as on a GPU. The end of
// a launch orders nothing for the threads of a dependent one until they wait for it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>

#include "tests/simt/block.h"
#include "tests/simt/shadow_memory.h"

namespace switchyard::simt {

class ThreadClocks {
 public:
  void begin_launch(const void* stream, bool dependent);
  void begin_block();
  /// From here on the thread comes after the launch before its own.
  void wait_for_previous_grid(int thread) { waited_[index(thread)] = true; }
  /// The next launch may start; whoever has not waited lets it start beside earlier ones too.
  void let_next_grid_start(int thread);
  void barrier();
  void warp_barrier(int warp, unsigned lanes);
  /// A fence makes the thread's next atomic a release, unless it writes before that.
  void fence(int thread) { fenced_[index(thread)] = true; }
  void plain_write(int thread) { fenced_[index(thread)] = false; }
  /// Acquires what was released on the word and, behind a fence, releases.
  void atomic(const void* address, int64_t block_index, int thread);

  /// An access of the running thread at this moment.
  [[nodiscard]] Access stamp(int64_t block_index, int thread, bool shared) const;
  /// Whether `earlier` comes before what the running thread does now.
  [[nodiscard]] bool is_ordered(const Access& earlier, int64_t block_index, int thread,
                                bool shared) const;
  /// What ShadowCell::initialized holds once the running block has written a byte.
  [[nodiscard]] uint8_t initialized_mark(bool shared) const;

 private:
  using Clocks = std::map<int, uint32_t>;  // by thread of the block

  static size_t index(int thread) { return static_cast<size_t>(thread); }
  [[nodiscard]] uint32_t generation(bool shared) const { return shared ? block_ : launch_; }
  [[nodiscard]] uint32_t own_clock(int thread) const;

  /// A launch, and the first one that may still run while it does.
  struct Span {
    uint32_t launch = 0;
    uint32_t first_beside = 0;
    bool passes_on = false;  ///< the next launch may run beside all of them
  };

  uint32_t launch_ = 0;
  Span* span_ = nullptr;
  std::map<const void*, Span> latest_;  ///< of each stream
  std::array<bool, kMaxThreads> waited_{};
  uint32_t block_ = 0;  // counts blocks, not their index
  uint32_t epoch_ = 0;  // counts barriers
  /// warp_clocks_[w][a][b]: the clock of lane b up to which lane a knows what it did.
  uint32_t warp_clocks_[kMaxWarps][kLanes][kLanes] = {};
  std::array<bool, kMaxThreads> fenced_{};
  /// What threads know of others in their block through atomics, and what words carry.
  std::array<Clocks, kMaxThreads> acquired_clocks_;
  std::map<const void*, Clocks> released_clocks_;
  /// The same between blocks, where a release stands for all that its block has done.
  std::set<int64_t> acquired_blocks_;
  std::map<const void*, std::set<int64_t>> released_blocks_;
};

}  // namespace switchyard::simt

// What orders the accesses of threads: barriers of blocks and of clusters, __syncwarp, ends of
// blocks and of launches, and a fence with an atomic on the same word. Shuffles and votes order
// nothing, as on a GPU. The end of a launch orders nothing for the threads of a dependent one until
// they wait for it.
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
  void begin_cluster();
  /// From here on the thread comes after the launch before its own.
  void wait_for_previous_grid(int thread) { own().waited[index(thread)] = true; }
  /// The next launch may start; whoever has not waited lets it start beside earlier ones too.
  void let_next_grid_start(int thread);
  void barrier();
  void warp_barrier(int warp, unsigned lanes);
  /// The thread has taken so many of the second steps of its cluster's barrier.
  void waited_for_cluster(int thread, unsigned num_waits);
  /// A fence makes the thread's next atomic a release, unless it writes before that.
  void fence(int thread) { own().fenced[index(thread)] = true; }
  void plain_write(int thread) { own().fenced[index(thread)] = false; }
  /// Acquires what was released on the word and, behind a fence, releases.
  void atomic(const void* address, int64_t block_index, int thread);

  /// An access of the running thread at this moment.
  [[nodiscard]] Access stamp(int64_t block_index, int thread, bool shared) const;
  /// Whether `earlier` comes before what the running thread does now.
  [[nodiscard]] bool is_ordered(const Access& earlier, int64_t block_index, int thread,
                                bool shared) const;
  /// What ShadowCell::initialized holds once the running cluster has written a byte.
  [[nodiscard]] uint8_t initialized_mark(bool shared) const;

 private:
  using Clocks = std::map<int, uint32_t>;  // by thread of the block

  /// Of one block of the cluster.
  struct BlockClocks {
    std::array<bool, kMaxThreads> waited{};
    uint32_t epoch = 0;  // counts barriers
    /// warp_clocks[w][a][b]: the clock of lane b up to which lane a knows what it did.
    uint32_t warp_clocks[kMaxWarps][kLanes][kLanes] = {};
    std::array<bool, kMaxThreads> fenced{};
    /// Arrivals at the cluster's barrier before which a thread knows what others did.
    std::array<uint32_t, kMaxThreads> phases{};
    /// What threads know of others in their block through atomics, and what words carry.
    std::array<Clocks, kMaxThreads> acquired_clocks;
    std::map<const void*, Clocks> released_clocks;
    /// The same between blocks, where a release stands for all that its block has done.
    std::set<int64_t> acquired_blocks;
  };

  static size_t index(int thread) { return static_cast<size_t>(thread); }
  static void begin(BlockClocks& clocks);
  [[nodiscard]] BlockClocks& own() { return blocks_[block->rank]; }
  [[nodiscard]] const BlockClocks& own() const { return blocks_[block->rank]; }
  [[nodiscard]] uint32_t generation(bool shared) const { return shared ? cluster_ : launch_; }
  [[nodiscard]] uint32_t own_clock(int thread) const;
  [[nodiscard]] bool is_ordered_in_cluster(const Access& earlier, int thread) const;

  /// A launch, and the first one that may still run while it does.
  struct Span {
    uint32_t launch = 0;
    uint32_t first_beside = 0;
    bool passes_on = false;  ///< the next launch may run beside all of them
  };

  uint32_t launch_ = 0;
  Span* span_ = nullptr;
  std::map<const void*, Span> latest_;  ///< of each stream
  uint32_t cluster_ = 0;                // counts clusters, not their index
  BlockClocks blocks_[kMaxClusterBlocks];
  std::map<const void*, std::set<int64_t>> released_blocks_;
};

}  // namespace switchyard::simt

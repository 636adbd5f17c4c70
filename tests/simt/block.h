// The cluster that runs: its blocks with their threads, warps and barriers. The executor's own
// parts share it. Without clusters a block is one by itself.
#pragma once

#include <vector_types.h>

#include <cstdint>
#include <string>

#include "tests/random_stream.h"
#include "tests/simt/call_site.h"
#include "tests/simt/collective.h"
#include "tests/simt/fault.h"
#include "tests/simt/fiber.h"
#include "tests/simt/settings.h"

namespace switchyard::simt {

inline constexpr int kLanes = 32;
inline constexpr int kMaxThreads = 1024;
inline constexpr int kMaxWarps = kMaxThreads / kLanes;

inline constexpr int kMaxClusterBlocks = 16;

enum class ThreadState : uint8_t { kReady, kInWarp, kAtBarrier, kAtClusterBarrier, kExited };

/// One CUDA thread. What a warp's meeting touches comes first, on one cache line.
struct alignas(64) Thread {
  uint64_t value = 0;   ///< what it gave to the meeting
  uint64_t result = 0;  ///< what it gets from it
  CallSite site;
  unsigned mask = 0;
  int argument = 0;
  int index = 0;  ///< in the block
  uint8_t width = 0;
  Collective collective{};
  ThreadState state = ThreadState::kExited;
  uint8_t rank = 0;  ///< of its block in the cluster
  Fiber fiber;
  uint3 position{};
  // At the cluster's barrier, since the cluster began.
  unsigned num_arrivals = 0;
  unsigned num_waits = 0;

  [[nodiscard]] int warp() const { return index / kLanes; }
  [[nodiscard]] int lane() const { return index % kLanes; }
  [[nodiscard]] unsigned bit() const { return 1u << lane(); }
};

/// Lanes that wait for the rest of their mask.
struct Meeting {
  Collective collective{};
  unsigned mask = 0;
  unsigned arrived = 0;
  CallSite site;
};

/// Sets of lanes are bit masks.
struct Warp {
  unsigned existing = 0;
  unsigned live = 0;
  unsigned ready = 0;
  int num_meetings = 0;
  Meeting meetings[kLanes];
};

/// The barrier at which some of the block's threads wait.
struct Barrier {
  int num_arrived = 0;
  int first_thread = 0;
  CallSite site;
  Collective collective{};
  int count = 0;  ///< of predicates that hold
};

struct Block {
  Thread threads[kMaxThreads];
  Warp warps[kMaxWarps];
  Barrier barrier;
  int num_threads = 0;
  int num_warps = 0;
  int num_live = 0;
  int first_exited = -1;  ///< thread, -1 while there is none
  int rank = 0;           ///< in the cluster
  uint3 position{};       ///< in the grid
  /// Of a random order's blocks two in three have strict random priorities of their warps, so that
  /// one runs far ahead of another; in the others a warp keeps running three times in four.
  bool has_priorities = false;
  int warps_by_priority[kMaxWarps];
};

/// The barrier of a cluster, which threads pass in two steps.
struct ClusterBarrier {
  int num_arrived = 0;
  const Thread* first = nullptr;  ///< to arrive
  CallSite site;
  unsigned num_completed = 0;
};

struct Cluster {
  Block blocks[kMaxClusterBlocks];
  int num_blocks = 0;
  ClusterBarrier barrier;
  const Thread* first_exited = nullptr;
  int64_t idle_atomics = 0;  ///< in a row, of all threads
};

extern Cluster cluster;
extern Block* block;     ///< whose thread runs
extern Thread* current;  ///< nullptr while host code runs
extern Statistics totals;
extern test::RandomStream choices;  ///< of random orders

/// Notes the launch's first fault; the launch ends at the next switch.
void record_fault(FaultKind kind, const std::string& text);
/// Where in the code it happened; its line is looked up once the launch has ended.
void record_code(const void* code);
bool has_fault();
/// Gives up the launch once a fault is recorded; outside kernels throws it. The fiber's stack is
/// left as it is, so nothing on it may own memory.
[[noreturn]] void abandon();
std::string describe(const Thread& thread);
/// "kernel K block (0,0,0): ".
std::string describe_block();
/// " of block (0,0,0)", or nothing where the cluster has no other block than the running one.
std::string describe_block_of(const Thread& thread);
/// Who waits where.
std::string describe_waiting();

/// Lets the next thread run; comes back when this one's turn has come again.
void leave();
/// Gives the lanes that have arrived their results and makes them ready.
void complete_meeting(int warp, int meeting);

// What others wait for cannot exit: all of them end the launch if somebody waits for `thread`.
void exit_at_barrier(const Thread& thread);
void exit_at_cluster_barrier(const Thread& thread);
void exit_meetings(const Thread& thread);

}  // namespace switchyard::simt

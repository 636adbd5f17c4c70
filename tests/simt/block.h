// The block that runs: its threads, warps and barrier. The executor's own parts share it.
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

enum class ThreadState : uint8_t { kReady, kInWarp, kAtBarrier, kExited };

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
  Fiber fiber;
  uint3 position{};

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
  int64_t idle_atomics = 0;
};

extern Block block;
extern Thread* current;  ///< nullptr while host code runs
extern Statistics totals;
extern test::RandomStream choices;  ///< of random orders

/// Notes the fault; the launch ends at the next switch.
void record_fault(FaultKind kind, const std::string& text);
/// Where in the code it happened; its line is looked up once the launch has ended.
void record_code(const void* code);
bool has_fault();
/// Gives up the launch from inside a kernel.
[[noreturn]] void abandon(FaultKind kind, const std::string& text);
std::string describe(const Thread& thread);
/// "kernel K block (0,0,0): ".
std::string describe_block();
/// Who waits where.
std::string describe_waiting();

/// Lets the next thread run; comes back when this one's turn has come again.
void leave();
/// Gives the lanes that have arrived their results and makes them ready.
void complete_meeting(int warp, int meeting);

// What others wait for cannot exit: both end the launch if somebody waits for `thread`.
void exit_at_barrier(const Thread& thread);
void exit_meetings(const Thread& thread);

}  // namespace switchyard::simt

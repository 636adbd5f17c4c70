// The texts in which faults are told.
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <sstream>

#include "tests/simt/block.h"
#include "tests/simt/device_hooks.h"
#include "tests/simt/executor.h"
#include "tests/simt/symbols.h"

namespace switchyard::simt {
namespace {

std::optional<Fault> recorded;
const void* recorded_code = nullptr;

std::string to_string(uint3 position) {
  std::ostringstream text;
  text << '(' << position.x << ',' << position.y << ',' << position.z << ')';
  return text.str();
}

}  // namespace

std::string hexadecimal(uint64_t value) {
  std::ostringstream text;
  text << "0x" << std::hex << value;
  return text.str();
}

std::string to_string(CallSite site) {
  const char* slash = std::strrchr(site.file, '/');
  return std::string(slash != nullptr ? slash + 1 : site.file) + ':' + std::to_string(site.line);
}

const char* to_string(FaultKind kind) {
  switch (kind) {
    case FaultKind::kBarrierDivergence:
      return "barrier divergence";
    case FaultKind::kCollectiveMismatch:
      return "warp collective mismatch";
    case FaultKind::kInactiveLane:
      return "inactive lane";
    case FaultKind::kDeadlock:
      return "deadlock";
    case FaultKind::kLivelock:
      return "livelock";
    case FaultKind::kSharedBounds:
      return "shared memory bounds";
    case FaultKind::kSharedLimit:
      return "shared memory limit";
    case FaultKind::kBadLaunch:
      return "bad launch";
    case FaultKind::kStackOverflow:
      return "stack overflow";
    case FaultKind::kRace:
      return "data race";
    case FaultKind::kUninitialized:
      return "uninitialized read";
    case FaultKind::kInvalidAccess:
      return "invalid access";
    case FaultKind::kMisaligned:
      return "misaligned access";
    case FaultKind::kTrap:
      return "trap";
  }
  return "?";
}

const char* to_string(Collective collective) {
  switch (collective) {
    case Collective::kSyncWarp:
      return "__syncwarp";
    case Collective::kShuffle:
      return "__shfl_sync";
    case Collective::kShuffleUp:
      return "__shfl_up_sync";
    case Collective::kShuffleDown:
      return "__shfl_down_sync";
    case Collective::kShuffleXor:
      return "__shfl_xor_sync";
    case Collective::kBallot:
      return "__ballot_sync";
    case Collective::kAny:
      return "__any_sync";
    case Collective::kAll:
      return "__all_sync";
    case Collective::kMatchAny:
      return "__match_any_sync";
    case Collective::kMatchAll:
      return "__match_all_sync";
    case Collective::kReduceAdd:
      return "__reduce_add_sync";
    case Collective::kReduceMinUnsigned:
    case Collective::kReduceMinSigned:
      return "__reduce_min_sync";
    case Collective::kReduceMaxUnsigned:
    case Collective::kReduceMaxSigned:
      return "__reduce_max_sync";
    case Collective::kReduceAnd:
      return "__reduce_and_sync";
    case Collective::kReduceOr:
      return "__reduce_or_sync";
    case Collective::kReduceXor:
      return "__reduce_xor_sync";
    case Collective::kActiveMask:
      return "__activemask";
    case Collective::kBarrier:
      return "__syncthreads";
    case Collective::kBarrierCount:
      return "__syncthreads_count";
    case Collective::kBarrierAnd:
      return "__syncthreads_and";
    case Collective::kBarrierOr:
      return "__syncthreads_or";
  }
  return "?";
}

void record_fault(FaultKind kind, const std::string& text) {
  if (!recorded) recorded = Fault(kind, std::string(to_string(kind)) + ": " + text);
}

bool has_fault() { return recorded.has_value(); }

void record_code(const void* code) { recorded_code = code; }

std::optional<Fault> take_fault() {
  std::optional<Fault> taken = recorded;
  const std::string line = recorded_code != nullptr ? source_line(recorded_code) : std::string();
  if (taken && !line.empty()) taken = Fault(taken->kind(), taken->what() + (", at " + line));
  recorded.reset();
  recorded_code = nullptr;
  return taken;
}

void abandon() {
  Thread* self = current;
  if (self == nullptr) throw Fault(*take_fault());
  current = nullptr;
  switch_fiber(&self->fiber, nullptr);
  __builtin_unreachable();
}

void trap() {
  const ExecutorScope scope;
  record_fault(FaultKind::kTrap, where() + "__trap()");
  abandon();
}

void refuse_alignment(const void* address, size_t bytes) {
  const ExecutorScope scope;
  record_fault(FaultKind::kMisaligned,
               where() + "accesses " + std::to_string(bytes) + " bytes at once at " +
                   hexadecimal(reinterpret_cast<uintptr_t>(address)) + ", which is " +
                   std::to_string(reinterpret_cast<uintptr_t>(address) % bytes) + " bytes too far");
  abandon();
}

std::string describe(const Thread& thread) {
  return "thread " + to_string(thread.position) + " [warp " + std::to_string(thread.warp()) +
         " lane " + std::to_string(thread.lane()) + "]";
}

std::string describe_block() {
  return "kernel " + running_kernel() + " block " + to_string(blockIdx) + ": ";
}

std::string describe_block_of(const Thread& thread) {
  if (cluster.num_blocks == 1) return "";
  return " of block " + to_string(cluster.blocks[thread.rank].position);
}

std::string where() {
  return describe_block() + (current != nullptr ? describe(*current) : "the host") + ": ";
}

std::string describe_waiting() {
  struct Group {
    int count = 0;
    std::string first;
  };
  std::map<std::string, Group> groups;
  const auto add = [&](const Thread& thread) {
    std::string what;
    switch (thread.state) {
      case ThreadState::kExited:
        what = "exited";
        break;
      case ThreadState::kReady:
        what = "could run";
        break;
      case ThreadState::kInWarp:
        what = std::string("waits in ") + to_string(thread.collective) + "(mask " +
               hexadecimal(thread.mask) + ") at " + to_string(thread.site);
        break;
      case ThreadState::kAtBarrier:
        what = std::string("waits in ") + to_string(thread.collective) + "() at " +
               to_string(thread.site);
        break;
      case ThreadState::kAtClusterBarrier:
        what = "waits in wait_for_cluster() at " + to_string(thread.site);
        break;
    }
    Group& group = groups[what];
    if (group.count++ == 0) group.first = describe(thread) + describe_block_of(thread);
  };
  for (int rank = 0; rank < cluster.num_blocks; ++rank) {
    const Block& member = cluster.blocks[rank];
    std::for_each(member.threads, member.threads + member.num_threads, add);
  }
  std::string text;
  for (const auto& [what, group] : groups) {
    text +=
        "\n    " + std::to_string(group.count) + " thread(s), first " + group.first + ": " + what;
  }
  return text;
}

}  // namespace switchyard::simt

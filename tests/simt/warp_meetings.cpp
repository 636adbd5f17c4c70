// The warp intrinsics: lanes wait for the others in their mask, the last to arrive computes for
// all.
#include <algorithm>
#include <bit>

#include "tests/simt/block.h"
#include "tests/simt/device_hooks.h"
#include "tests/simt/executor.h"
#include "tests/simt/race_observer.h"

namespace switchyard::simt {
namespace {

template <class Visit>
void for_each_lane(unsigned lanes, const Visit& visit) {
  for (; lanes != 0; lanes &= lanes - 1) visit(std::countr_zero(lanes));
}

std::string describe_call(Collective collective, unsigned mask, CallSite site) {
  return std::string(to_string(collective)) + "(mask " + hexadecimal(mask) + ") at " +
         to_string(site);
}

std::string describe(const Meeting& meeting) {
  return describe_call(meeting.collective, meeting.mask, meeting.site);
}

int source_lane(Collective collective, int lane, int argument, int width) {
  const int segment = lane & ~(width - 1);
  int source = lane;
  switch (collective) {
    case Collective::kShuffle:
      return segment | (argument & (width - 1));
    case Collective::kShuffleUp:
      source = lane - argument;
      break;
    case Collective::kShuffleDown:
      source = lane + argument;
      break;
    // A segment may look into those below it, which a GPU allows, but not beyond its own end.
    default:
      source = lane ^ argument;
      return source >= 0 && source < segment + width ? source : lane;
  }
  return source >= segment && source < segment + width ? source : lane;
}

void shuffle_lanes(const Meeting& meeting, const Warp& warp, Thread* lanes) {
  for_each_lane(meeting.arrived, [&](int lane) {
    Thread& thread = lanes[lane];
    const int source = source_lane(meeting.collective, lane, thread.argument, thread.width);
    if ((meeting.arrived >> source & 1u) != 0) {
      thread.result = lanes[source].value;
      return;
    }
    thread.result = ~uint64_t{0};
    record_fault(FaultKind::kInactiveLane,
                 describe_block() + describe(thread) + " reads lane " + std::to_string(source) +
                     " in " + describe(meeting) + ", which " +
                     ((warp.live >> source & 1u) != 0 ? "is not in the mask"
                                                      : "has exited or does not exist"));
  });
}

unsigned reduced(Collective collective, unsigned a, unsigned b) {
  switch (collective) {
    case Collective::kReduceAdd:
      return a + b;
    case Collective::kReduceMinUnsigned:
      return std::min(a, b);
    case Collective::kReduceMaxUnsigned:
      return std::max(a, b);
    case Collective::kReduceMinSigned:
      return static_cast<unsigned>(std::min(static_cast<int>(a), static_cast<int>(b)));
    case Collective::kReduceMaxSigned:
      return static_cast<unsigned>(std::max(static_cast<int>(a), static_cast<int>(b)));
    case Collective::kReduceAnd:
      return a & b;
    case Collective::kReduceOr:
      return a | b;
    default:
      return a ^ b;
  }
}

unsigned reduce_lanes(const Meeting& meeting, const Thread* lanes) {
  const int first = std::countr_zero(meeting.arrived);
  auto result = static_cast<unsigned>(lanes[first].value);
  for_each_lane(meeting.arrived & (meeting.arrived - 1), [&](int lane) {
    result = reduced(meeting.collective, result, static_cast<unsigned>(lanes[lane].value));
  });
  return result;
}

/// The lanes whose predicate holds.
unsigned holding_lanes(const Meeting& meeting, const Thread* lanes) {
  unsigned holding = 0;
  for_each_lane(meeting.arrived,
                [&](int lane) { holding |= (lanes[lane].value != 0 ? 1u : 0u) << lane; });
  return holding;
}

/// The lanes whose value equals that of `lane`.
unsigned equal_lanes(const Meeting& meeting, const Thread* lanes, int lane) {
  unsigned equal = 0;
  for_each_lane(meeting.arrived, [&](int other) {
    if (lanes[other].value == lanes[lane].value) equal |= 1u << other;
  });
  return equal;
}

void give_all(const Meeting& meeting, Thread* lanes, uint64_t result) {
  for_each_lane(meeting.arrived, [&](int lane) { lanes[lane].result = result; });
}

/// Any set of lanes that holds the caller is a legal answer, so a random order splits them.
void give_active_masks(const Meeting& meeting, Thread* lanes) {
  unsigned part = meeting.arrived;
  if (settings().order == Order::kRandom) part &= static_cast<unsigned>(choices.bits());
  for_each_lane(meeting.arrived, [&](int lane) {
    lanes[lane].result = (part >> lane & 1u) != 0 ? part : meeting.arrived & ~part;
  });
}

void compute(const Meeting& meeting, const Warp& warp, Thread* lanes) {
  switch (meeting.collective) {
    case Collective::kSyncWarp:
      break;
    case Collective::kShuffle:
    case Collective::kShuffleUp:
    case Collective::kShuffleDown:
    case Collective::kShuffleXor:
      shuffle_lanes(meeting, warp, lanes);
      break;
    case Collective::kBallot:
      give_all(meeting, lanes, holding_lanes(meeting, lanes));
      break;
    case Collective::kAny:
      give_all(meeting, lanes, holding_lanes(meeting, lanes) != 0);
      break;
    case Collective::kAll:
      give_all(meeting, lanes, holding_lanes(meeting, lanes) == meeting.arrived);
      break;
    case Collective::kMatchAny:
      for_each_lane(meeting.arrived,
                    [&](int lane) { lanes[lane].result = equal_lanes(meeting, lanes, lane); });
      break;
    case Collective::kMatchAll: {
      const int first = std::countr_zero(meeting.arrived);
      const bool all_equal = equal_lanes(meeting, lanes, first) == meeting.arrived;
      give_all(meeting, lanes, all_equal ? meeting.arrived : 0);
      break;
    }
    case Collective::kActiveMask:
      give_active_masks(meeting, lanes);
      break;
    default:
      give_all(meeting, lanes, reduce_lanes(meeting, lanes));
      break;
  }
}

[[noreturn]] __attribute__((noinline, cold)) void refuse_mask(Collective collective, unsigned mask,
                                                              CallSite site) {
  const Warp& warp = block->warps[current->warp()];
  const unsigned gone = mask & warp.existing & ~warp.live;
  record_fault(
      FaultKind::kCollectiveMismatch,
      where() + "calls " + describe_call(collective, mask, site) +
          (gone != 0 ? ", whose mask names lanes " + hexadecimal(gone) + " that have exited"
                     : ", whose mask does not name its own lane"));
  abandon();
}

[[noreturn]] __attribute__((noinline, cold)) void refuse_site(const Meeting& meeting,
                                                              CallSite site) {
  record_fault(FaultKind::kCollectiveMismatch,
               where() + "is in " + describe_call(meeting.collective, meeting.mask, site) +
                   " while lanes " + hexadecimal(meeting.arrived) +
                   " of that mask are in the one at " + to_string(meeting.site));
  abandon();
}

/// Two meetings that wait for each other's lanes would wait for ever.
void refuse_crossed_masks(const Warp& warp, const Meeting& own) {
  for (int i = 0; i < warp.num_meetings; ++i) {
    const Meeting& other = warp.meetings[i];
    const bool crossed = (other.mask & current->bit()) != 0 && (own.mask & other.arrived) != 0;
    if (&other == &own || other.collective == Collective::kActiveMask || !crossed) continue;
    record_fault(FaultKind::kCollectiveMismatch, where() + "waits in " + describe(own) +
                                                     " for lanes " +
                                                     hexadecimal(own.mask & other.arrived) +
                                                     ", which wait for it in " + describe(other));
    abandon();
  }
}

/// The meeting that these lanes hold, a new one if there is none.
Meeting& join(Warp& warp, Collective collective, unsigned mask, CallSite site) {
  for (int i = 0; i < warp.num_meetings; ++i) {
    Meeting& meeting = warp.meetings[i];
    if (meeting.collective != collective || meeting.mask != mask) continue;
    if (meeting.site == site) return meeting;
    if (collective != Collective::kActiveMask) refuse_site(meeting, site);
  }
  Meeting& meeting = warp.meetings[warp.num_meetings++];
  meeting = {collective, mask, 0, site};
  return meeting;
}

}  // namespace

void complete_meeting(int warp_index, int meeting_index) {
  Warp& warp = block->warps[warp_index];
  const Meeting meeting = warp.meetings[meeting_index];
  warp.meetings[meeting_index] = warp.meetings[--warp.num_meetings];
  ++totals.warp_collectives;
  cluster.idle_atomics = 0;
  // Shuffles and votes order no memory, here as on a GPU.
  if (race_observer != nullptr && meeting.collective == Collective::kSyncWarp) {
    race_observer->warp_barrier(warp_index, meeting.arrived);
  }
  Thread* lanes = &block->threads[warp_index * kLanes];
  compute(meeting, warp, lanes);
  for_each_lane(meeting.arrived, [&](int lane) { lanes[lane].state = ThreadState::kReady; });
  warp.ready |= meeting.arrived;
}

uint64_t meet_warp(Collective collective, unsigned mask, uint64_t value, int argument, int width,
                   CallSite site) {
  const ExecutorScope scope;
  if (current == nullptr) {
    throw Fault(FaultKind::kBadLaunch, describe_call(collective, mask, site) + " outside a kernel");
  }
  if (has_fault()) leave();
  Thread& self = *current;
  Warp& warp = block->warps[self.warp()];
  const bool opportunistic = collective == Collective::kActiveMask;
  const bool names_exited = (mask & warp.existing & ~warp.live) != 0;
  if ((mask & self.bit()) == 0 || (names_exited && !opportunistic)) {
    refuse_mask(collective, mask, site);
  }
  self.collective = collective;
  self.mask = mask;
  self.value = value;
  self.argument = argument;
  self.width = static_cast<uint8_t>(width);
  self.site = site;

  Meeting& meeting = join(warp, collective, mask, site);
  meeting.arrived |= self.bit();
  self.state = ThreadState::kInWarp;
  warp.ready &= ~self.bit();
  const unsigned expected = mask & warp.live;
  if (!opportunistic && (meeting.arrived & expected) == expected) {
    complete_meeting(self.warp(), static_cast<int>(&meeting - warp.meetings));
    if (has_fault() || (settings().order == Order::kRandom && choices.chance(50))) leave();
  } else {
    if (!opportunistic && warp.num_meetings > 1) refuse_crossed_masks(warp, meeting);
    leave();
  }
  return self.result;
}

void exit_meetings(const Thread& thread) {
  const Warp& warp = block->warps[thread.warp()];
  for (int i = 0; i < warp.num_meetings; ++i) {
    const Meeting& meeting = warp.meetings[i];
    const bool expected = (meeting.mask & thread.bit()) != 0;
    if (meeting.collective == Collective::kActiveMask || !expected) continue;
    record_fault(FaultKind::kCollectiveMismatch,
                 where() + "exits while lanes " + hexadecimal(meeting.arrived) +
                     " of its warp wait for it in " + describe(meeting));
    abandon();
  }
}

}  // namespace switchyard::simt

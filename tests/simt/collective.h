// The intrinsics at which threads of a block meet.
#pragma once

#include <cstdint>

namespace switchyard::simt {

enum class Collective : uint8_t {
  kSyncWarp,
  kShuffle,
  kShuffleUp,
  kShuffleDown,
  kShuffleXor,
  kBallot,
  kAny,
  kAll,
  kMatchAny,
  kMatchAll,
  kReduceAdd,
  kReduceMinUnsigned,
  kReduceMaxUnsigned,
  kReduceMinSigned,
  kReduceMaxSigned,
  kReduceAnd,
  kReduceOr,
  kReduceXor,
  kActiveMask,
  kBarrier,
  kBarrierCount,
  kBarrierAnd,
  kBarrierOr,
};

/// The name that kernels call it by.
const char* to_string(Collective collective);

}  // namespace switchyard::simt

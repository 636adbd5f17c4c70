// Which tag means what, within a communicator of the transport's own.
#pragma once

#include "nccl/mpi_notes.h"

namespace switchyard::nccl {

inline constexpr int kNoteTag = 1;
inline constexpr int kGatherTag = 2;      ///< a header, and as much as fits behind it
inline constexpr int kGatherRestTag = 3;  ///< what did not fit

/// Rows of one exchange never meet another's: the tag is of the round and the phase. MPI promises
/// no tags above 32767.
inline int row_tag(const MpiCall& call) {
  constexpr uint64_t kNumTags = 1 << 14;
  return static_cast<int>(kNumTags +
                          (static_cast<uint64_t>(call.round) + call.phase_hash) % kNumTags);
}

}  // namespace switchyard::nccl

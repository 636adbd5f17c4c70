// The shared memory of the block that runs.
#pragma once

#include <cstddef>

namespace switchyard::simt {

/// Starts a block with no array but the dynamic one. What arrays hold at first is garbage.
void begin_shared_memory(size_t dynamic_bytes);

/// Where the arrays of every block are, once one has run.
struct SharedArena {
  const char* begin;
  size_t bytes;
};
SharedArena shared_arena();

/// Records a fault if a thread of the block wrote behind an array.
void check_shared_memory();

}  // namespace switchyard::simt

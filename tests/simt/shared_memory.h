// The shared memory of the blocks that run. What a block reads of another's lies at addresses of
// its own, where it can be touched only while the other block surely runs: from the cluster's first
// barrier on until that block ends.
#pragma once

#include <cstddef>
#include <string>

namespace switchyard::simt {

/// Starts `block` with no array but the dynamic one. What arrays hold at first is garbage.
void begin_shared_memory(size_t dynamic_bytes);

/// Lets the blocks of the cluster touch each other's arrays.
void open_shared_memory();

/// Ends `block`: nobody touches its arrays again. Records a fault if a thread wrote behind one.
void end_shared_memory();

/// Where the arrays of all blocks of a cluster are, one block's behind the other's, once one has
/// run.
struct SharedArenas {
  const char* begin;
  size_t bytes;           ///< of all
  size_t bytes_of_block;  ///< of one
};
SharedArenas shared_arenas();

/// The address at which its own block sees what lies at `address`, where that is one for other
/// blocks; any other address as it is.
const char* own_view(const char* address);
/// Whether `address` is one for other blocks, and whether they may touch it now.
bool is_for_other_blocks(const void* address);
bool is_open(const void* address);
/// "shared memory of block 3 of its cluster, which has ended".
std::string describe_closed(const void* address);

}  // namespace switchyard::simt

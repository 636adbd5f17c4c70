// What the race detector keeps for every byte that kernels share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/simt/block.h"

namespace switchyard::simt {

/// Who touched a byte, and when by the clocks that order a cluster's threads. Epochs and clocks
/// wrap around after 65,536 barriers of a block and phases after 256 of a cluster, so a race across
/// as many may be missed.
struct Access {
  uint32_t block : 24 = 0;
  uint32_t phase : 8 = 0;        ///< arrivals of the thread at its cluster's barrier
  uint32_t generation : 21 = 0;  ///< of the launch, or in shared memory of the cluster; 0 for none
  uint32_t atomic : 1 = 0;
  uint32_t thread : 10 = 0;
  uint16_t epoch = 0;
  uint16_t clock = 0;
  uint32_t code = 0;
};

/// One byte. Two reads are kept, since they need not be ordered with each other.
struct ShadowCell {
  Access write;
  Access read;
  Access other_read;
  uint8_t initialized = 0;  ///< in shared memory a number that stands for the cluster
};

/// Memory that threads share: a device or pinned allocation, or an array in shared memory.
struct Region {
  const char* begin = nullptr;
  const char* end = nullptr;
  ShadowCell* cells = nullptr;
  bool shared = false;
  std::string name;

  [[nodiscard]] size_t bytes() const { return static_cast<size_t>(end - begin); }
  [[nodiscard]] bool holds(const char* address) const { return address >= begin && address < end; }
  [[nodiscard]] ShadowCell& cell(const char* address) const { return cells[address - begin]; }
};

/// "shared array 'counts' of 128 bytes, byte 4".
std::string describe(const Region& region, const char* address);

class ShadowMemory {
 public:
  void add_allocation(const char* begin, size_t bytes);
  void remove_allocation(const char* begin);

  void clear_shared_arrays() {
    for (std::vector<Region>& arrays : arrays_) arrays.clear();
  }
  void add_shared_array(const char* begin, size_t bytes, const char* name);

  /// nullptr for memory that threads do not share or that is none.
  Region* find(const char* address);

 private:
  std::map<const char*, Region> allocations_;
  std::vector<Region> arrays_[kMaxClusterBlocks];  ///< of the running cluster's blocks
  Region* latest_ = nullptr;
  ShadowCell* arena_cells_ = nullptr;
};

}  // namespace switchyard::simt

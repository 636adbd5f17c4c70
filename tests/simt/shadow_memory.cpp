#include "tests/simt/shadow_memory.h"

#include <sys/mman.h>

#include <iterator>
#include <new>

#include "tests/simt/shared_memory.h"

namespace switchyard::simt {
namespace {

/// Zero cells, which cost memory only where they are touched.
ShadowCell* map_cells(size_t count) {
  void* memory = mmap(nullptr, count * sizeof(ShadowCell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return static_cast<ShadowCell*>(memory);
}

}  // namespace

std::string describe(const Region& region, const char* address) {
  return region.name + " of " + std::to_string(region.bytes()) + " bytes, byte " +
         std::to_string(address - region.begin);
}

void ShadowMemory::add_allocation(const char* begin, size_t bytes) {
  allocations_[begin] = {begin, begin + bytes, map_cells(bytes), false, "device memory"};
  latest_ = nullptr;
}

void ShadowMemory::remove_allocation(const char* begin) {
  const auto found = allocations_.find(begin);
  if (found == allocations_.end()) return;
  munmap(found->second.cells, found->second.bytes() * sizeof(ShadowCell));
  allocations_.erase(found);
  latest_ = nullptr;
}

void ShadowMemory::add_shared_array(const char* begin, size_t bytes, const char* name) {
  const SharedArenas arenas = shared_arenas();
  if (arena_cells_ == nullptr) arena_cells_ = map_cells(arenas.bytes);
  const auto offset = static_cast<size_t>(begin - arenas.begin);
  const size_t rank = offset / arenas.bytes_of_block;
  const std::string of_block =
      cluster.num_blocks > 1 ? " in block " + std::to_string(rank) + " of its cluster" : "";
  arrays_[rank].push_back({begin, begin + bytes, arena_cells_ + offset, true,
                           "shared array '" + std::string(name) + "'" + of_block});
}

Region* ShadowMemory::find(const char* address) {
  if (latest_ != nullptr && latest_->holds(address)) return latest_;
  const SharedArenas arenas = shared_arenas();
  if (arenas.begin != nullptr && address >= arenas.begin && address < arenas.begin + arenas.bytes) {
    const auto offset = static_cast<size_t>(address - arenas.begin);
    for (Region& array : arrays_[offset / arenas.bytes_of_block]) {
      if (array.holds(address)) return &array;
    }
    return nullptr;
  }
  const auto above = allocations_.upper_bound(address);
  if (above == allocations_.begin()) return nullptr;
  Region& allocation = std::prev(above)->second;
  if (!allocation.holds(address)) return nullptr;
  latest_ = &allocation;
  return latest_;
}

}  // namespace switchyard::simt

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
  const SharedArena arena = shared_arena();
  if (arena_cells_ == nullptr) arena_cells_ = map_cells(arena.bytes);
  arrays_.push_back({begin, begin + bytes, arena_cells_ + (begin - arena.begin), true,
                     "shared array '" + std::string(name) + "'"});
}

Region* ShadowMemory::find(const char* address) {
  if (latest_ != nullptr && latest_->holds(address)) return latest_;
  for (Region& array : arrays_) {
    if (array.holds(address)) return &array;
  }
  const auto above = allocations_.upper_bound(address);
  if (above == allocations_.begin()) return nullptr;
  Region& allocation = std::prev(above)->second;
  if (!allocation.holds(address)) return nullptr;
  latest_ = &allocation;
  return latest_;
}

}  // namespace switchyard::simt

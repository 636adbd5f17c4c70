#include "tests/simt/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <new>

#include "tests/simt/address_sanitizer.h"
#include "tests/simt/race_observer.h"
#include "tests/simt/settings.h"

namespace switchyard::simt {
namespace {

constexpr size_t kRangeBytes = size_t{1} << 40;
constexpr size_t kAlignment = 256;
constexpr unsigned char kGarbage = 0xff;
constexpr unsigned char kTailByte = 0xc7;

size_t rounded_up(size_t bytes, size_t multiple) {
  return (bytes + multiple - 1) / multiple * multiple;
}

size_t page_size() {
  static const auto kPageSize = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return kPageSize;
}

void* pointer(uintptr_t address) {
  return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

uintptr_t number(const void* address) { return reinterpret_cast<uintptr_t>(address); }

/// The pages that hold the allocation, which ends with the last of them as far as alignment lets
/// it.
uintptr_t first_page(uintptr_t address) { return address / page_size() * page_size(); }

/// The bytes between the allocation's end and that of its last page.
size_t tail_bytes(size_t bytes) { return rounded_up(bytes, kAlignment) - bytes; }

}  // namespace

DeviceMemory& device_memory() {
  // Never destroyed: what outlives it may still free memory.
  static auto* instance = new DeviceMemory;
  return *instance;
}

void DeviceMemory::reserve_range() {
  if (begin_ != 0) return;
  void* range =
      mmap(nullptr, kRangeBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) throw std::bad_alloc();
  begin_ = number(range);
  end_ = begin_ + kRangeBytes;
  next_ = begin_ + page_size();
}

void DeviceMemory::protect(Allocations::const_iterator allocation, bool accessible) {
  mprotect(pointer(first_page(allocation->first)), allocation->second.page_bytes,
           accessible ? PROT_READ | PROT_WRITE : PROT_NONE);
}

void* DeviceMemory::allocate(size_t bytes) {
  reserve_range();
  const size_t padded = rounded_up(bytes, kAlignment);
  const size_t page_bytes = rounded_up(padded, page_size());
  const int64_t in_use = bytes_in_use_ + static_cast<int64_t>(bytes);
  if (in_use > settings().device_memory_bytes || page_bytes > end_ - next_ - page_size()) {
    return nullptr;
  }
  const uintptr_t address = next_ + page_bytes - padded;
  const auto allocation = allocations_.emplace(address, Allocation{bytes, page_bytes}).first;
  next_ += page_bytes + page_size();
  bytes_in_use_ = in_use;

  protect(allocation, true);
  std::memset(pointer(address), kGarbage, bytes);
  std::memset(pointer(address + bytes), kTailByte, tail_bytes(bytes));
  poison(pointer(address + bytes), tail_bytes(bytes));
  poison(pointer(first_page(address)), address - first_page(address));
  if (!accessible_) protect(allocation, false);
  if (race_observer != nullptr) race_observer->allocated(pointer(address), bytes);
  return pointer(address);
}

bool DeviceMemory::release(void* address) {
  const auto found = allocations_.find(number(address));
  if (found == allocations_.end()) return false;
  if (race_observer != nullptr) race_observer->freed(address);
  protect(found, false);
  madvise(pointer(first_page(found->first)), found->second.page_bytes, MADV_DONTNEED);
  bytes_in_use_ -= static_cast<int64_t>(found->second.bytes);
  freed_.insert(allocations_.extract(found));
  return true;
}

DeviceMemory::Allocations::const_iterator DeviceMemory::find(const Allocations& allocations,
                                                             const void* address) {
  const auto above = allocations.upper_bound(number(address));
  return above == allocations.begin() ? allocations.end() : std::prev(above);
}

bool DeviceMemory::holds(const void* address, size_t bytes) const {
  const auto found = find(allocations_, address);
  if (found == allocations_.end()) return false;
  const size_t offset = number(address) - found->first;
  return offset <= found->second.bytes && bytes <= found->second.bytes - offset;
}

bool DeviceMemory::is_in_range(const void* address) const {
  return number(address) >= begin_ && number(address) < end_;
}

std::string DeviceMemory::describe(const void* address) const {
  const auto live = find(allocations_, address);
  const auto freed = find(freed_, address);
  if (live == allocations_.end() && freed == freed_.end()) return "before all device allocations";
  const bool is_live =
      live != allocations_.end() && (freed == freed_.end() || live->first > freed->first);
  const auto& [begin, allocation] = is_live ? *live : *freed;
  const std::string what = (is_live ? "a device allocation of " : "a freed device allocation of ") +
                           std::to_string(allocation.bytes) + " bytes";
  const size_t offset = number(address) - begin;
  if (offset < allocation.bytes) return "byte " + std::to_string(offset) + " of " + what;
  return std::to_string(offset - allocation.bytes) + " bytes behind the end of " + what;
}

void DeviceMemory::protect_all(bool accessible) {
  if (accessible_ == accessible) return;
  accessible_ = accessible;
  for (auto it = allocations_.cbegin(); it != allocations_.cend(); ++it) {
    protect(it, accessible);
  }
}

void DeviceMemory::open() {
  if (times_open_++ == 0) protect_all(true);
}

void DeviceMemory::close() {
  if (--times_open_ == 0 && settings().hide_device_memory) protect_all(false);
}

std::string DeviceMemory::find_overrun() const {
  if constexpr (kHasAddressSanitizer) return {};
  for (const auto& [address, allocation] : allocations_) {
    const auto* tail = static_cast<const unsigned char*>(pointer(address + allocation.bytes));
    const auto* end = tail + tail_bytes(allocation.bytes);
    const auto* changed = std::find_if(tail, end, [](auto byte) { return byte != kTailByte; });
    if (changed != end) return describe(changed);
  }
  return {};
}

}  // namespace switchyard::simt

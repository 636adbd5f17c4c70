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
  if (!is_open()) protect(allocation, false);
  if (race_observer != nullptr) race_observer->allocated(pointer(address), bytes);
  return pointer(address);
}

bool DeviceMemory::release(void* address) {
  const auto found = allocations_.find(number(address));
  if (found == allocations_.end() || found->second.freed) return false;
  if (race_observer != nullptr) race_observer->freed(address);
  protect(found, false);
  madvise(pointer(first_page(found->first)), found->second.page_bytes, MADV_DONTNEED);
  bytes_in_use_ -= static_cast<int64_t>(found->second.bytes);
  found->second.freed = true;
  return true;
}

DeviceMemory::Allocations::const_iterator DeviceMemory::find(const void* address) const {
  const auto above = allocations_.upper_bound(number(address));
  return above == allocations_.begin() ? allocations_.end() : std::prev(above);
}

bool DeviceMemory::holds(const void* address, size_t bytes) const {
  const auto found = find(address);
  if (found == allocations_.end() || found->second.freed) return false;
  const size_t offset = number(address) - found->first;
  return offset <= found->second.bytes && bytes <= found->second.bytes - offset;
}

bool DeviceMemory::is_in_range(const void* address) const {
  return number(address) >= begin_ && number(address) < end_;
}

std::string DeviceMemory::describe(const void* address) const {
  const auto found = find(address);
  if (found == allocations_.end()) return "before all device allocations";
  const std::string what =
      (found->second.freed ? "a freed device allocation of " : "a device allocation of ") +
      std::to_string(found->second.bytes) + " bytes";
  const size_t offset = number(address) - found->first;
  if (offset < found->second.bytes) return "byte " + std::to_string(offset) + " of " + what;
  return std::to_string(offset - found->second.bytes) + " bytes behind the end of " + what;
}

int64_t DeviceMemory::num_allocations() const {
  return std::count_if(allocations_.begin(), allocations_.end(),
                       [](const auto& allocation) { return !allocation.second.freed; });
}

void DeviceMemory::open() {
  if (times_open_++ > 0) return;
  for (auto it = allocations_.cbegin(); it != allocations_.cend(); ++it) {
    if (!it->second.freed) protect(it, true);
  }
}

void DeviceMemory::close() {
  if (--times_open_ > 0) return;
  for (auto it = allocations_.cbegin(); it != allocations_.cend(); ++it) {
    if (!it->second.freed) protect(it, false);
  }
}

std::string DeviceMemory::find_overrun() const {
  if constexpr (kHasAddressSanitizer) return {};
  for (const auto& [address, allocation] : allocations_) {
    if (allocation.freed) continue;
    const auto* tail = static_cast<const unsigned char*>(pointer(address + allocation.bytes));
    const auto* end = tail + tail_bytes(allocation.bytes);
    const auto* changed = std::find_if(tail, end, [](auto byte) { return byte != kTailByte; });
    if (changed != end) return describe(changed);
  }
  return {};
}

}  // namespace switchyard::simt

#include "tests/simt/shared_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "tests/simt/address_sanitizer.h"
#include "tests/simt/block.h"
#include "tests/simt/device_hooks.h"
#include "tests/simt/executor.h"
#include "tests/simt/race_observer.h"

namespace switchyard::simt {
namespace {

constexpr size_t kArenaBytes = 512 << 10;
constexpr size_t kGapBytes = 128;  ///< between arrays; nobody may touch it
constexpr unsigned char kGapByte = 0xc7;

struct SharedArray {
  const void* key;
  char* address;
  size_t bytes;
  std::string name;
};

char* arena = nullptr;
size_t used_bytes = 0;
size_t static_bytes = 0;
std::vector<SharedArray> arrays;  // the dynamic one has no key
unsigned char garbage = 0xff;

/// Gaps are poisoned where AddressSanitizer watches; elsewhere a pattern shows writes.
void make_gap(char* address, size_t bytes) {
  if constexpr (kHasAddressSanitizer) {
    poison(address, bytes);
  } else {
    std::memset(address, kGapByte, bytes);
  }
}

char* add_array(const void* key, size_t bytes, size_t alignment, const char* name) {
  const size_t offset = (used_bytes + alignment - 1) / alignment * alignment;
  if (offset + bytes + kGapBytes > kArenaBytes) {
    fail(FaultKind::kSharedLimit, "no room for shared array '" + std::string(name) + "'");
  }
  char* address = arena + offset;
  make_gap(arena + used_bytes, offset - used_bytes);
  unpoison(address, bytes);
  std::memset(address, garbage, bytes);
  used_bytes = offset + bytes + kGapBytes;
  make_gap(address + bytes, kGapBytes);
  arrays.push_back({key, address, bytes, name});
  if (race_observer != nullptr) race_observer->shared_array(address, bytes, name);
  return address;
}

size_t dynamic_bytes() {
  return !arrays.empty() && arrays.front().key == nullptr ? arrays.front().bytes : 0;
}

}  // namespace

SharedArena shared_arena() { return {arena, kArenaBytes}; }

void begin_shared_memory(size_t bytes) {
  if (arena == nullptr) {
    void* memory =
        mmap(nullptr, kArenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    arena = static_cast<char*>(memory);
  }
  // What the block before left must not look like data.
  poison(arena, std::max(used_bytes, kGapBytes));
  arrays.clear();
  static_bytes = 0;
  used_bytes = kGapBytes;
  garbage = settings().order == Order::kRandom && choices.chance(50) ? 0x7f : 0xff;
  if (bytes > 0) add_array(nullptr, bytes, 1024, "dynamic");
}

void check_shared_memory() {
  totals.max_shared_bytes =
      std::max(totals.max_shared_bytes, static_cast<int64_t>(static_bytes + dynamic_bytes()));
  if constexpr (kHasAddressSanitizer) return;
  for (const SharedArray& array : arrays) {
    const char* end = array.address + array.bytes;
    const auto* changed = std::find_if(end, end + kGapBytes, [](char byte) {
      return static_cast<unsigned char>(byte) != kGapByte;
    });
    if (changed == end + kGapBytes) continue;
    record_fault(FaultKind::kSharedBounds,
                 describe_block() + "a thread wrote " + std::to_string(changed - end) +
                     " bytes behind the end of shared array '" + array.name + "' of " +
                     std::to_string(array.bytes) + " bytes; seen at the block's end");
    return;
  }
}

void* static_shared(const void* key, size_t bytes, size_t alignment, const char* name) {
  for (const SharedArray& array : arrays) {
    if (array.key == key) return array.address;
  }
  if (current == nullptr) {
    throw Fault(FaultKind::kBadLaunch, std::string("shared array '") + name + "' outside a kernel");
  }
  static_bytes = (static_bytes + alignment - 1) / alignment * alignment + bytes;
  if (static_bytes > kDefaultSharedBytes || static_bytes + dynamic_bytes() > kMaxSharedBytes) {
    fail(FaultKind::kSharedLimit,
         "shared array '" + std::string(name) + "' brings static shared memory to " +
             std::to_string(static_bytes) + " bytes beside " + std::to_string(dynamic_bytes()) +
             " dynamic ones; the limits are " + std::to_string(kDefaultSharedBytes) + " and " +
             std::to_string(kMaxSharedBytes) + " together");
  }
  constexpr size_t kMinAlignment = 16;
  return add_array(key, bytes, std::max(alignment, kMinAlignment), name);
}

void* dynamic_shared() {
  if (dynamic_bytes() == 0) {
    fail(FaultKind::kBadLaunch, "dynamic shared memory, of which the launch has none");
  }
  return arrays.front().address;
}

}  // namespace switchyard::simt

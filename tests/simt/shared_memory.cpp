#include "tests/simt/shared_memory.h"

#include <sys/mman.h>
#include <unistd.h>

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
constexpr size_t kArenasBytes = kMaxClusterBlocks * kArenaBytes;
constexpr size_t kGapBytes = 128;  ///< between arrays; nobody may touch it
constexpr unsigned char kGapByte = 0xc7;

struct SharedArray {
  const void* key;
  char* address;
  size_t bytes;
  std::string name;
};

/// The arrays of one block.
struct Arena {
  char* begin = nullptr;
  size_t used_bytes = 0;
  size_t static_bytes = 0;
  std::vector<SharedArray> arrays;  ///< the dynamic one has no key
  bool is_open = false;             ///< to other blocks
};

char* own_views = nullptr;    // of all arenas
char* other_views = nullptr;  // the same memory, for other blocks
Arena arenas[kMaxClusterBlocks];
unsigned char garbage = 0xff;

Arena& arena() { return arenas[block->rank]; }

char* view_of_others(const char* address) { return other_views + (address - own_views); }

bool in_views(const void* address, const char* views) {
  const auto* byte = static_cast<const char*>(address);
  return views != nullptr && byte >= views && byte < views + kArenasBytes;
}

size_t index_of(const void* other_view) {
  return static_cast<size_t>(static_cast<const char*>(other_view) - other_views) / kArenaBytes;
}

void map_views() {
  const int memory = memfd_create("simt_shared_memory", 0);
  if (memory < 0 || ftruncate(memory, kArenasBytes) != 0) throw std::bad_alloc();
  const auto map = [memory](int protection) {
    void* view = mmap(nullptr, kArenasBytes, protection, MAP_SHARED, memory, 0);
    if (view == MAP_FAILED) throw std::bad_alloc();
    return static_cast<char*>(view);
  };
  own_views = map(PROT_READ | PROT_WRITE);
  other_views = map(PROT_NONE);
  close(memory);
  for (size_t i = 0; i < kMaxClusterBlocks; ++i) arenas[i].begin = own_views + i * kArenaBytes;
}

void allow_others(Arena& of, bool allowed) {
  if (of.is_open == allowed) return;
  of.is_open = allowed;
  mprotect(view_of_others(of.begin), kArenaBytes, allowed ? PROT_READ | PROT_WRITE : PROT_NONE);
}

/// Gaps are poisoned where AddressSanitizer watches; elsewhere a pattern shows writes.
void make_gap(char* address, size_t bytes) {
  if constexpr (kHasAddressSanitizer) {
    poison(address, bytes);
    poison(view_of_others(address), bytes);
  } else {
    std::memset(address, kGapByte, bytes);
  }
}

char* add_array(Arena& to, const void* key, size_t bytes, size_t alignment, const char* name) {
  const size_t offset = (to.used_bytes + alignment - 1) / alignment * alignment;
  if (offset + bytes + kGapBytes > kArenaBytes) {
    record_fault(FaultKind::kSharedLimit,
                 where() + "no room for shared array '" + std::string(name) + "'");
    abandon();
  }
  char* address = to.begin + offset;
  make_gap(to.begin + to.used_bytes, offset - to.used_bytes);
  unpoison(address, bytes);
  unpoison(view_of_others(address), bytes);
  std::memset(address, garbage, bytes);
  to.used_bytes = offset + bytes + kGapBytes;
  make_gap(address + bytes, kGapBytes);
  to.arrays.push_back({key, address, bytes, name});
  if (race_observer != nullptr) race_observer->shared_array(address, bytes, name);
  return address;
}

size_t dynamic_bytes(const Arena& of) {
  return !of.arrays.empty() && of.arrays.front().key == nullptr ? of.arrays.front().bytes : 0;
}

SharedArray* find_array(Arena& in, const void* key) {
  const auto found = std::find_if(in.arrays.begin(), in.arrays.end(),
                                  [key](const SharedArray& array) { return array.key == key; });
  return found != in.arrays.end() ? &*found : nullptr;
}

void check_gaps(const Arena& of) {
  totals.max_shared_bytes =
      std::max(totals.max_shared_bytes, static_cast<int64_t>(of.static_bytes + dynamic_bytes(of)));
  if constexpr (kHasAddressSanitizer) return;
  for (const SharedArray& array : of.arrays) {
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

}  // namespace

SharedArenas shared_arenas() { return {own_views, kArenasBytes, kArenaBytes}; }

void begin_shared_memory(size_t bytes) {
  if (own_views == nullptr) map_views();
  Arena& own = arena();
  allow_others(own, false);
  // What the block before left must not look like data.
  const size_t left = std::max(own.used_bytes, kGapBytes);
  poison(own.begin, left);
  poison(view_of_others(own.begin), left);
  own.arrays.clear();
  own.static_bytes = 0;
  own.used_bytes = kGapBytes;
  if (block->rank == 0) {
    garbage = settings().order == Order::kRandom && choices.chance(50) ? 0x7f : 0xff;
  }
  if (bytes > 0) add_array(own, nullptr, bytes, 1024, "dynamic");
}

void open_shared_memory() {
  for (int rank = 0; rank < cluster.num_blocks; ++rank) allow_others(arenas[rank], true);
}

void end_shared_memory() {
  allow_others(arena(), false);
  check_gaps(arena());
}

const char* own_view(const char* address) {
  return in_views(address, other_views) ? own_views + (address - other_views) : address;
}

bool is_for_other_blocks(const void* address) { return in_views(address, other_views); }

bool is_open(const void* address) { return arenas[index_of(address)].is_open; }

std::string describe_closed(const void* address) {
  const size_t rank = index_of(address);
  const bool ended = cluster.blocks[rank].num_live == 0;
  return "shared memory of block " + std::to_string(rank) + " of its cluster, which " +
         (ended ? "has ended" : "may not have started before the cluster's first barrier");
}

void* static_shared(const void* key, size_t bytes, size_t alignment, const char* name) {
  const ExecutorScope scope;
  Arena& own = arena();
  if (const SharedArray* array = find_array(own, key)) return array->address;
  if (current == nullptr) {
    throw Fault(FaultKind::kBadLaunch, std::string("shared array '") + name + "' outside a kernel");
  }
  const size_t dynamic = dynamic_bytes(own);
  own.static_bytes = (own.static_bytes + alignment - 1) / alignment * alignment + bytes;
  if (own.static_bytes > kDefaultSharedBytes || own.static_bytes + dynamic > kMaxSharedBytes) {
    record_fault(FaultKind::kSharedLimit,
                 where() + "shared array '" + std::string(name) +
                     "' brings static shared memory to " + std::to_string(own.static_bytes) +
                     " bytes beside " + std::to_string(dynamic) + " dynamic ones; the limits are " +
                     std::to_string(kDefaultSharedBytes) + " and " +
                     std::to_string(kMaxSharedBytes) + " together");
    abandon();
  }
  constexpr size_t kMinAlignment = 16;
  return add_array(own, key, bytes, std::max(alignment, kMinAlignment), name);
}

void* dynamic_shared() {
  const ExecutorScope scope;
  // A kernel may declare what only some of its launches use.
  return dynamic_bytes(arena()) == 0 ? nullptr : arena().arrays.front().address;
}

void* shared_of_block(const void* address, unsigned rank) {
  const ExecutorScope scope;
  if (current == nullptr) {
    throw Fault(FaultKind::kBadLaunch, "another block's shared memory outside a kernel");
  }
  const auto* byte = static_cast<const char*>(address);
  Arena& own = arena();
  const auto array = std::find_if(own.arrays.begin(), own.arrays.end(), [byte](const auto& a) {
    return byte >= a.address && byte <= a.address + a.bytes;
  });
  if (rank >= static_cast<unsigned>(cluster.num_blocks) || array == own.arrays.end()) {
    record_fault(
        FaultKind::kInvalidAccess,
        where() + "asks where block " + std::to_string(rank) + " of a cluster of " +
            std::to_string(cluster.num_blocks) + " has " +
            (array == own.arrays.end() ? hexadecimal(reinterpret_cast<uintptr_t>(address)) +
                                             ", which is in no shared array"
                                       : "shared array '" + array->name + "'"));
    abandon();
  }
  if (static_cast<int>(rank) == block->rank) return array->address + (byte - array->address);
  // The layout is the same in all blocks, whether they have come to the declaration or not.
  Arena& other = arenas[rank];
  const SharedArray* counterpart = find_array(other, array->key);
  if (counterpart == nullptr) {
    other.static_bytes += array->bytes;
    constexpr size_t kAlignment = 128;
    add_array(other, array->key, array->bytes, kAlignment, array->name.c_str());
    counterpart = &other.arrays.back();
  }
  return view_of_others(counterpart->address) + (byte - array->address);
}

}  // namespace switchyard::simt

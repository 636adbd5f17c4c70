// The functions that code compiled with -fsanitize=thread calls at each access. A program linked
// without that flag has no ThreadSanitizer, and these take its place.
#include <cstdint>
#include <cstring>

#include "tests/simt/race_detector.h"

using switchyard::simt::RaceDetector;

namespace {

/// Starts to watch before anything is allocated.
[[maybe_unused]] const bool kRegistered = [] {
  switchyard::simt::race_observer = &RaceDetector::instance();
  return true;
}();

RaceDetector& detector() { return RaceDetector::instance(); }

}  // namespace

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier)
#define SIMT_CALLER __builtin_return_address(0)

// One for each size that the compiler knows.
#define SIMT_ACCESS_CALLBACKS(bytes)                               \
  void __tsan_read##bytes(void* address) {                         \
    detector().aligned_access(address, bytes, false, SIMT_CALLER); \
  }                                                                \
  void __tsan_write##bytes(void* address) {                        \
    detector().aligned_access(address, bytes, true, SIMT_CALLER);  \
  }                                                                \
  void __tsan_unaligned_read##bytes(void* address) {               \
    detector().access(address, bytes, false, SIMT_CALLER);         \
  }                                                                \
  void __tsan_unaligned_write##bytes(void* address) {              \
    detector().access(address, bytes, true, SIMT_CALLER);          \
  }                                                                \
  void __tsan_read_write##bytes(void* address) {                   \
    detector().aligned_access(address, bytes, false, SIMT_CALLER); \
    detector().access(address, bytes, true, SIMT_CALLER);          \
  }                                                                \
  void __tsan_unaligned_read_write##bytes(void* address) {         \
    detector().access(address, bytes, false, SIMT_CALLER);         \
    detector().access(address, bytes, true, SIMT_CALLER);          \
  }

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

SIMT_ACCESS_CALLBACKS(1)
SIMT_ACCESS_CALLBACKS(2)
SIMT_ACCESS_CALLBACKS(4)
SIMT_ACCESS_CALLBACKS(8)
SIMT_ACCESS_CALLBACKS(16)

void __tsan_read_range(void* address, size_t bytes) {
  detector().access(address, bytes, false, SIMT_CALLER);
}
void __tsan_write_range(void* address, size_t bytes) {
  detector().access(address, bytes, true, SIMT_CALLER);
}

void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  detector().access(from, bytes, false, SIMT_CALLER);
  detector().access(to, bytes, true, SIMT_CALLER);
  return std::memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  detector().access(from, bytes, false, SIMT_CALLER);
  detector().access(to, bytes, true, SIMT_CALLER);
  return std::memmove(to, from, bytes);
}
void* __tsan_memset(void* address, int value, size_t bytes) {
  detector().access(address, bytes, true, SIMT_CALLER);
  return std::memset(address, value, bytes);
}

// Launchers that share a source with kernels may hold function-local statics, whose guards are
// atomics of the host.
uint8_t __tsan_atomic8_load(const volatile uint8_t* address, int) {
  return __atomic_load_n(address, __ATOMIC_SEQ_CST);
}
uint32_t __tsan_atomic32_load(const volatile uint32_t* address, int) {
  return __atomic_load_n(address, __ATOMIC_SEQ_CST);
}
uint64_t __tsan_atomic64_load(const volatile uint64_t* address, int) {
  return __atomic_load_n(address, __ATOMIC_SEQ_CST);
}
void __tsan_atomic32_store(volatile uint32_t* address, uint32_t value, int) {
  __atomic_store_n(address, value, __ATOMIC_SEQ_CST);
}
void __tsan_atomic64_store(volatile uint64_t* address, uint64_t value, int) {
  __atomic_store_n(address, value, __ATOMIC_SEQ_CST);
}
uint32_t __tsan_atomic32_fetch_add(volatile uint32_t* address, uint32_t value, int) {
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}
uint64_t __tsan_atomic64_fetch_add(volatile uint64_t* address, uint64_t value, int) {
  return __atomic_fetch_add(address, value, __ATOMIC_SEQ_CST);
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)

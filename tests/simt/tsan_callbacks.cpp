// The functions that code compiled with -fsanitize=thread calls at each access. A program linked
// without that flag has no ThreadSanitizer, and these take its place.
#include <cstdint>

#include "tests/simt/race_detector.h"

using switchyard::simt::RaceDetector;

namespace {

/// nullptr until the detector is made; instrumented code may run before, even to make it.
RaceDetector* detector = nullptr;

/// Starts to watch before anything is allocated.
[[maybe_unused]] const bool kRegistered = [] {
  detector = &RaceDetector::instance();
  switchyard::simt::race_observer = detector;
  return true;
}();

void report(const void* address, size_t bytes, bool write, const void* code) {
  if (detector != nullptr) detector->access(address, bytes, write, code);
}

void report_aligned(const void* address, size_t bytes, bool write, const void* code) {
  if (detector != nullptr) detector->aligned_access(address, bytes, write, code);
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier)
#define SIMT_CALLER __builtin_return_address(0)

// One for each size that the compiler knows.
#define SIMT_ACCESS_CALLBACKS(bytes)                                                               \
  void __tsan_read##bytes(void* address) { report_aligned(address, bytes, false, SIMT_CALLER); }   \
  void __tsan_write##bytes(void* address) { report_aligned(address, bytes, true, SIMT_CALLER); }   \
  void __tsan_unaligned_read##bytes(void* address) { report(address, bytes, false, SIMT_CALLER); } \
  void __tsan_unaligned_write##bytes(void* address) { report(address, bytes, true, SIMT_CALLER); } \
  void __tsan_read_write##bytes(void* address) {                                                   \
    report_aligned(address, bytes, false, SIMT_CALLER);                                            \
    report(address, bytes, true, SIMT_CALLER);                                                     \
  }                                                                                                \
  void __tsan_unaligned_read_write##bytes(void* address) {                                         \
    report(address, bytes, false, SIMT_CALLER);                                                    \
    report(address, bytes, true, SIMT_CALLER);                                                     \
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

void __tsan_read_range(void* address, size_t bytes) { report(address, bytes, false, SIMT_CALLER); }
void __tsan_write_range(void* address, size_t bytes) { report(address, bytes, true, SIMT_CALLER); }

// The compiler leaves calls of these three as they are. The linker's --wrap brings them here.
void* __real_memcpy(void* to, const void* from, size_t bytes);
void* __real_memmove(void* to, const void* from, size_t bytes);
void* __real_memset(void* address, int value, size_t bytes);

void* __wrap_memcpy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) {
    report(from, bytes, false, SIMT_CALLER);
    report(to, bytes, true, SIMT_CALLER);
  }
  return __real_memcpy(to, from, bytes);
}
void* __wrap_memmove(void* to, const void* from, size_t bytes) {
  if (bytes > 0) {
    report(from, bytes, false, SIMT_CALLER);
    report(to, bytes, true, SIMT_CALLER);
  }
  return __real_memmove(to, from, bytes);
}
void* __wrap_memset(void* address, int value, size_t bytes) {
  if (bytes > 0) report(address, bytes, true, SIMT_CALLER);
  return __real_memset(address, value, bytes);
}

// Later compilers call them by these names.
void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
  return __wrap_memcpy(to, from, bytes);
}
void* __tsan_memmove(void* to, const void* from, size_t bytes) {
  return __wrap_memmove(to, from, bytes);
}
void* __tsan_memset(void* address, int value, size_t bytes) {
  return __wrap_memset(address, value, bytes);
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

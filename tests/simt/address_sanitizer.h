// AddressSanitizer's interface where the build has it; elsewhere the same calls do nothing.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_HAS_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_HAS_ADDRESS_SANITIZER 1
#endif
#endif
#ifndef SIMT_HAS_ADDRESS_SANITIZER
#define SIMT_HAS_ADDRESS_SANITIZER 0
#endif

#if SIMT_HAS_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace switchyard::simt {

inline constexpr bool kHasAddressSanitizer = SIMT_HAS_ADDRESS_SANITIZER != 0;

/// Makes every access to these bytes an error.
inline void poison([[maybe_unused]] const void* address, [[maybe_unused]] size_t bytes) {
#if SIMT_HAS_ADDRESS_SANITIZER
  __asan_poison_memory_region(address, bytes);
#endif
}

inline void unpoison([[maybe_unused]] const void* address, [[maybe_unused]] size_t bytes) {
#if SIMT_HAS_ADDRESS_SANITIZER
  __asan_unpoison_memory_region(address, bytes);
#endif
}

}  // namespace switchyard::simt

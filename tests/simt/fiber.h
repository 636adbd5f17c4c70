// A stack with a guard page, and the change to it that AddressSanitizer follows.
#pragma once

#include <cstddef>

#include "tests/simt/address_sanitizer.h"

namespace switchyard::simt {

struct Fiber {
  void* context = nullptr;
  char* stack = nullptr;            ///< lowest address
  void* sanitizer_state = nullptr;  ///< what AddressSanitizer keeps of a fiber that waits
};

/// Every fiber has as much, and a guard below it.
inline constexpr size_t kStackBytes = (kHasAddressSanitizer ? 512 : 128) << 10;
inline constexpr size_t kGuardBytes = 64 << 10;

/// Makes the fiber start in `entry` when next switched to, whatever it was doing. `color` fibers
/// have their stacks in different cache sets.
void prepare_fiber(Fiber& fiber, void (*entry)(), int color);

/// Leaves `from` for `to`; nullptr is the stack of the host thread that launches.
void switch_fiber(Fiber* from, Fiber* to);

/// Comes first in a fiber's entry.
void enter_fiber();

/// Whether `address` is in the guard below the fiber's stack.
bool is_in_guard(const Fiber& fiber, const void* address);

}  // namespace switchyard::simt

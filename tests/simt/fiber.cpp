#include "tests/simt/fiber.h"

#include <sys/mman.h>

#include <new>

#include "tests/simt/context_switch.h"

namespace switchyard::simt {
namespace {

/// The stack of the host thread that launches.
struct HostStack {
  void* context = nullptr;
  void* sanitizer_state = nullptr;
  const void* bottom = nullptr;
  size_t bytes = 0;
};

HostStack host;
bool came_from_host = false;

void announce_arrival([[maybe_unused]] void* sanitizer_state) {
#if SIMT_HAS_ADDRESS_SANITIZER
  __sanitizer_finish_switch_fiber(sanitizer_state, came_from_host ? &host.bottom : nullptr,
                                  came_from_host ? &host.bytes : nullptr);
#endif
}

void announce_departure([[maybe_unused]] Fiber* from, [[maybe_unused]] Fiber* to) {
#if SIMT_HAS_ADDRESS_SANITIZER
  __sanitizer_start_switch_fiber(from != nullptr ? &from->sanitizer_state : &host.sanitizer_state,
                                 to != nullptr ? to->stack : host.bottom,
                                 to != nullptr ? kStackBytes : host.bytes);
#endif
}

}  // namespace

void prepare_fiber(Fiber& fiber, void (*entry)(), int color) {
  if (fiber.stack == nullptr) {
    void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuardBytes, PROT_NONE);
    fiber.stack = static_cast<char*>(memory) + kGuardBytes;
  }
  // Frames of a kernel that was given up are still poisoned.
  unpoison(fiber.stack, kStackBytes);
  fiber.sanitizer_state = nullptr;
  constexpr size_t kColorBytes = 192;
  fiber.context =
      make_context(fiber.stack, kStackBytes - static_cast<size_t>(color) * kColorBytes, entry);
}

void switch_fiber(Fiber* from, Fiber* to) {
  came_from_host = from == nullptr;
  announce_departure(from, to);
  switch_context(from != nullptr ? &from->context : &host.context,
                 to != nullptr ? to->context : host.context);
  announce_arrival(from != nullptr ? from->sanitizer_state : host.sanitizer_state);
}

void enter_fiber() { announce_arrival(nullptr); }

bool is_in_guard(const Fiber& fiber, const void* address) {
  const auto* byte = static_cast<const char*>(address);
  return fiber.stack != nullptr && byte < fiber.stack && byte >= fiber.stack - kGuardBytes;
}

}  // namespace switchyard::simt

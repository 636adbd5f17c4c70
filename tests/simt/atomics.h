// CUDA's atomics and fences. One host thread runs a whole block, so a plain read, change and write
// is atomic, and the sanitizers see it.
#pragma once

#include <cstring>
#include <type_traits>

#include "tests/simt/device_hooks.h"
#include "tests/simt/warp_intrinsics.h"

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier)
namespace switchyard::simt {

template <class T, class Change>
SIMT_UNINSTRUMENTED T read_change_write(T* address, Change change, CallSite site) {
  require_alignment(address, sizeof(T));
  before_atomic(address, sizeof(T), site);
  const T before = *address;
  const T after = change(before);
  const bool changed = std::memcmp(&before, &after, sizeof(T)) != 0;
  if (changed) *address = after;
  after_atomic(changed);
  return before;
}

/// Integers wrap around, signed ones too.
template <class T>
T wrapping_sum(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using Unsigned = std::make_unsigned_t<T>;
    return static_cast<T>(static_cast<Unsigned>(a) + static_cast<Unsigned>(b));
  } else {
    return a + b;
  }
}

}  // namespace switchyard::simt

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return switchyard::simt::read_change_write(
      address, [=](T before) { return switchyard::simt::wrapping_sum(before, value); }, site);
}
template <class T>
T atomicSub(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  static_assert(std::is_integral_v<T>);
  return switchyard::simt::read_change_write(
      address,
      [=](T before) { return switchyard::simt::wrapping_sum(before, static_cast<T>(~value + 1u)); },
      site);
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return switchyard::simt::read_change_write(
      address, [=](T) { return value; }, site);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value,
            SIMT_CALL_SITE) {
  return switchyard::simt::read_change_write(
      address, [=](T before) { return before == compare ? value : before; }, site);
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  static_assert(std::is_integral_v<T>);
  return switchyard::simt::read_change_write(
      address, [=](T before) { return value < before ? value : before; }, site);
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  static_assert(std::is_integral_v<T>);
  return switchyard::simt::read_change_write(
      address, [=](T before) { return before < value ? value : before; }, site);
}
template <class T>
T atomicAnd(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return switchyard::simt::read_change_write(
      address, [=](T before) { return static_cast<T>(before & value); }, site);
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return switchyard::simt::read_change_write(
      address, [=](T before) { return static_cast<T>(before | value); }, site);
}
template <class T>
T atomicXor(T* address, std::type_identity_t<T> value, SIMT_CALL_SITE) {
  return switchyard::simt::read_change_write(
      address, [=](T before) { return static_cast<T>(before ^ value); }, site);
}
/// Counts up to `limit`, then starts again at 0.
inline unsigned atomicInc(unsigned* address, unsigned limit, SIMT_CALL_SITE) {
  return switchyard::simt::read_change_write(
      address, [=](unsigned before) { return before >= limit ? 0 : before + 1; }, site);
}
/// Counts down to 0, then starts again at `limit`.
inline unsigned atomicDec(unsigned* address, unsigned limit, SIMT_CALL_SITE) {
  return switchyard::simt::read_change_write(
      address, [=](unsigned before) { return before == 0 || before > limit ? limit : before - 1; },
      site);
}

inline void __threadfence() { switchyard::simt::memory_fence(); }
inline void __threadfence_block() { switchyard::simt::memory_fence(); }
inline void __threadfence_system() { switchyard::simt::memory_fence(); }
inline void __nanosleep(unsigned) { switchyard::simt::pause(); }
[[noreturn]] inline void __trap() {
  switchyard::simt::fail(switchyard::simt::FaultKind::kTrap, "__trap()");
}
inline long long clock64() { return switchyard::simt::clock(); }
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)

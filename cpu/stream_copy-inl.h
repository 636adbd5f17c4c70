// Writes past the caches.

// Per-target include guard
#if defined(SWITCHYARD_CPU_STREAM_COPY_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_STREAM_COPY_INL_H_
#undef SWITCHYARD_CPU_STREAM_COPY_INL_H_
#else
#define SWITCHYARD_CPU_STREAM_COPY_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Saves reading the lines that are about to be overwritten. Others see the bytes once
// hwy::FlushStream() has been called.
HWY_INLINE void StreamBytes(const uint8_t* HWY_RESTRICT from, size_t bytes,
                            uint8_t* HWY_RESTRICT to) {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  std::memcpy(to, from, bytes);
#else
  const hn::ScalableTag<uint8_t> d;
  const size_t N = hn::Lanes(d);
  const size_t misaligned = reinterpret_cast<uintptr_t>(to) % N;
  size_t i = std::min(bytes, misaligned == 0 ? 0 : N - misaligned);
  std::memcpy(to, from, i);
  for (; i + N <= bytes; i += N) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  std::memcpy(to + i, from + i, bytes - i);
#endif
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

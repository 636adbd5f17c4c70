#include "nccl/stream_copy.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nccl/stream_copy.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::nccl::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void StreamCopy(uint8_t* HWY_RESTRICT to, const uint8_t* HWY_RESTRICT from, size_t bytes) {
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
  hwy::FlushStream();
}

}  // namespace switchyard::nccl::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::nccl {

HWY_EXPORT(StreamCopy);

void stream_copy(std::byte* to, const std::byte* from, int64_t num_bytes) {
  HWY_DYNAMIC_DISPATCH(StreamCopy)
  (reinterpret_cast<uint8_t*>(to), reinterpret_cast<const uint8_t*>(from),
   static_cast<size_t>(num_bytes));
}

}  // namespace switchyard::nccl
#endif  // HWY_ONCE

#include "switchyard/stream_copy.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/stream_copy.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "cpu/stream_copy-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

void StreamCopy(uint8_t* to, const uint8_t* from, size_t bytes) {
  StreamBytes(from, bytes, to);
  hwy::FlushStream();
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard {
namespace cpu {
namespace {

HWY_EXPORT(StreamCopy);

void dispatch(uint8_t* to, const uint8_t* from, size_t bytes) {
  HWY_DYNAMIC_DISPATCH(StreamCopy)(to, from, bytes);
}

}  // namespace
}  // namespace cpu

void stream_copy(std::byte* to, const std::byte* from, int64_t num_bytes) {
  cpu::dispatch(reinterpret_cast<uint8_t*>(to), reinterpret_cast<const uint8_t*>(from),
                static_cast<size_t>(num_bytes));
}

}  // namespace switchyard
#endif  // HWY_ONCE

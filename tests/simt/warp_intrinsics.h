// CUDA's barriers and warp intrinsics. Each passes on where it was called from.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/simt/device_hooks.h"

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier)
#define SIMT_CALL_SITE switchyard::simt::CallSite site = switchyard::simt::CallSite::here()

namespace switchyard::simt {

template <class T>
uint64_t to_bits(const T& value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, static_cast<const void*>(&value), sizeof value);
  return bits;
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(static_cast<void*>(&value), &bits, sizeof value);
  return value;
}

inline unsigned vote(Collective collective, unsigned mask, int predicate, CallSite site) {
  return static_cast<unsigned>(meet_warp(collective, mask, predicate != 0 ? 1 : 0, 0, 32, site));
}

template <class T>
T shuffle(Collective collective, unsigned mask, const T& value, int argument, int width,
          CallSite site) {
  return from_bits<T>(meet_warp(collective, mask, to_bits(value), argument, width, site));
}

template <class T>
T reduce(Collective collective, unsigned mask, T value, CallSite site) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  return static_cast<T>(meet_warp(collective, mask, to_bits(value), 0, 32, site));
}

}  // namespace switchyard::simt

inline void __syncthreads(SIMT_CALL_SITE) {
  switchyard::simt::meet_block(switchyard::simt::Collective::kBarrier, 0, site);
}
inline int __syncthreads_count(int predicate, SIMT_CALL_SITE) {
  return switchyard::simt::meet_block(switchyard::simt::Collective::kBarrierCount, predicate, site);
}
inline int __syncthreads_and(int predicate, SIMT_CALL_SITE) {
  return switchyard::simt::meet_block(switchyard::simt::Collective::kBarrierAnd, predicate, site);
}
inline int __syncthreads_or(int predicate, SIMT_CALL_SITE) {
  return switchyard::simt::meet_block(switchyard::simt::Collective::kBarrierOr, predicate, site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_CALL_SITE) {
  switchyard::simt::meet_warp(switchyard::simt::Collective::kSyncWarp, mask, 0, 0, 32, site);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_CALL_SITE) {
  return switchyard::simt::shuffle(switchyard::simt::Collective::kShuffle, mask, value, source,
                                   width, site);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_CALL_SITE) {
  return switchyard::simt::shuffle(switchyard::simt::Collective::kShuffleUp, mask, value,
                                   static_cast<int>(delta), width, site);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_CALL_SITE) {
  return switchyard::simt::shuffle(switchyard::simt::Collective::kShuffleDown, mask, value,
                                   static_cast<int>(delta), width, site);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, SIMT_CALL_SITE) {
  return switchyard::simt::shuffle(switchyard::simt::Collective::kShuffleXor, mask, value, lanes,
                                   width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
  return switchyard::simt::vote(switchyard::simt::Collective::kBallot, mask, predicate, site);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
  return static_cast<int>(
      switchyard::simt::vote(switchyard::simt::Collective::kAny, mask, predicate, site));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_CALL_SITE) {
  return static_cast<int>(
      switchyard::simt::vote(switchyard::simt::Collective::kAll, mask, predicate, site));
}
inline unsigned __activemask(SIMT_CALL_SITE) {
  return switchyard::simt::vote(switchyard::simt::Collective::kActiveMask, 0xffffffffu, 1, site);
}

template <class T>
unsigned __match_any_sync(unsigned mask, T value, SIMT_CALL_SITE) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return static_cast<unsigned>(switchyard::simt::meet_warp(switchyard::simt::Collective::kMatchAny,
                                                           mask, switchyard::simt::to_bits(value),
                                                           0, 32, site));
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* all_equal, SIMT_CALL_SITE) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  const auto lanes = static_cast<unsigned>(
      switchyard::simt::meet_warp(switchyard::simt::Collective::kMatchAll, mask,
                                  switchyard::simt::to_bits(value), 0, 32, site));
  *all_equal = lanes != 0;
  return lanes;
}

inline unsigned __reduce_add_sync(unsigned mask, unsigned value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceAdd, mask, value, site);
}
inline int __reduce_add_sync(unsigned mask, int value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceAdd, mask, value, site);
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceMinUnsigned, mask, value,
                                  site);
}
inline int __reduce_min_sync(unsigned mask, int value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceMinSigned, mask, value,
                                  site);
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceMaxUnsigned, mask, value,
                                  site);
}
inline int __reduce_max_sync(unsigned mask, int value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceMaxSigned, mask, value,
                                  site);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceAnd, mask, value, site);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceOr, mask, value, site);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, SIMT_CALL_SITE) {
  return switchyard::simt::reduce(switchyard::simt::Collective::kReduceXor, mask, value, site);
}
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)

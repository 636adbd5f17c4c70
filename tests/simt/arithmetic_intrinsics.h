// CUDA's integer, bit and correctly rounded float functions. Approximations such as __expf are left
// out on purpose: no host gives the GPU's bits, so no kernel here may use them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

// NOLINTBEGIN(readability-identifier-naming,bugprone-reserved-identifier)
namespace switchyard::simt {

/// What the hardware converts to: the nearest integer that the type has, 0 for a NaN.
template <class Integer, class Float>
Integer saturating_cast(Float value) {
  constexpr Integer kLowest = std::numeric_limits<Integer>::min();
  constexpr Integer kHighest = std::numeric_limits<Integer>::max();
  if (std::isnan(value)) return 0;
  if (value <= static_cast<Float>(kLowest)) return kLowest;
  if (value >= static_cast<Float>(kHighest)) return kHighest;
  return static_cast<Integer>(value);
}

}  // namespace switchyard::simt

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
/// One more than the index of the lowest bit set, 0 without one.
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline int __ffsll(long long x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned long long>(x)) + 1;
}
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned long long __brevll(unsigned long long x) {
  return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32 |
         __brev(static_cast<unsigned>(x >> 32));
}
/// Four bytes chosen out of the eight of `high:low`; bit 3 of a choice repeats the byte's sign.
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned choices) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned choice = choices >> (4 * i) & 15u;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (choice & 7u))) & 255u;
    if ((choice & 8u) != 0) byte = (byte & 128u) != 0 ? 255u : 0u;
    result |= byte << (8 * i);
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<unsigned>(both << (shift & 31u) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  return static_cast<unsigned>(both >> (shift & 31u));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

inline int __float2int_rn(float x) {
  return switchyard::simt::saturating_cast<int>(std::nearbyint(x));
}
inline int __float2int_rz(float x) { return switchyard::simt::saturating_cast<int>(x); }
inline int __float2int_ru(float x) { return switchyard::simt::saturating_cast<int>(std::ceil(x)); }
inline int __float2int_rd(float x) { return switchyard::simt::saturating_cast<int>(std::floor(x)); }
inline unsigned __float2uint_rn(float x) {
  return switchyard::simt::saturating_cast<unsigned>(std::nearbyint(x));
}
inline unsigned __float2uint_rz(float x) { return switchyard::simt::saturating_cast<unsigned>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }
inline float __uint2float_rn(unsigned x) { return static_cast<float>(x); }
inline float __ll2float_rn(long long x) { return static_cast<float>(x); }
inline float __double2float_rn(double x) { return static_cast<float>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
/// Clamped to [0, 1]; a NaN becomes 0.
inline float __saturatef(float x) { return x > 0.0f ? std::min(x, 1.0f) : 0.0f; }

inline int min(int a, int b) { return std::min(a, b); }
inline int max(int a, int b) { return std::max(a, b); }
inline unsigned min(unsigned a, unsigned b) { return std::min(a, b); }
inline unsigned max(unsigned a, unsigned b) { return std::max(a, b); }
inline long min(long a, long b) { return std::min(a, b); }
inline long max(long a, long b) { return std::max(a, b); }
inline unsigned long min(unsigned long a, unsigned long b) { return std::min(a, b); }
inline unsigned long max(unsigned long a, unsigned long b) { return std::max(a, b); }
inline long long min(long long a, long long b) { return std::min(a, b); }
inline long long max(long long a, long long b) { return std::max(a, b); }
inline unsigned long long min(unsigned long long a, unsigned long long b) { return std::min(a, b); }
inline unsigned long long max(unsigned long long a, unsigned long long b) { return std::max(a, b); }
// Of a number and a NaN the number, which std::fmax() makes of quiet NaNs only; of two NaNs the
// GPU's own.
inline float min(float a, float b) {
  if (std::isnan(a)) return std::isnan(b) ? __uint_as_float(0x7fffffffu) : b;
  return std::isnan(b) || a < b ? a : b;
}
inline float max(float a, float b) {
  if (std::isnan(a)) return std::isnan(b) ? __uint_as_float(0x7fffffffu) : b;
  return std::isnan(b) || a > b ? a : b;
}
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
// NOLINTEND(readability-identifier-naming,bugprone-reserved-identifier)

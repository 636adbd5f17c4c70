// Sorting networks across vectors: every lane sorts its own list, greatest first.

// Per-target include guard
#if defined(SWITCHYARD_CPU_SORTING_NETWORKS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_SORTING_NETWORKS_INL_H_
#undef SWITCHYARD_CPU_SORTING_NETWORKS_INL_H_
#else
#define SWITCHYARD_CPU_SORTING_NETWORKS_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Puts the greater lane in `a`, the lesser in `b`.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void Exchange(D d, V& a, V& b) {
  const V greater = hn::Max(a, b);
#if HWY_CAP_GE512
  // The ports that compare are fewer than those that combine bits: min is a ^ b ^ max.
  const hn::RebindToUnsigned<D> du;
  b = hn::BitCast(d, hn::Xor3(hn::BitCast(du, a), hn::BitCast(du, b), hn::BitCast(du, greater)));
#else
  (void)d;
  b = hn::Min(a, b);
#endif
  a = greater;
}

// Sorts a list that rises once and falls once, cyclically (bitonic).
template <size_t kSize, class D, class V = hn::Vec<D>>
HWY_INLINE void SortBitonic(D d, V* v) {
  if constexpr (kSize > 1) {
    for (size_t i = 0; i < kSize / 2; ++i) Exchange(d, v[i], v[i + kSize / 2]);
    SortBitonic<kSize / 2>(d, v);
    SortBitonic<kSize / 2>(d, v + kSize / 2);
  }
}

template <size_t kSize, class D, class V = hn::Vec<D>>
HWY_INLINE void SortList(D d, V* v) {
  static_assert(kSize == 1 || kSize == 2 || kSize == 4 || kSize == 8 || kSize == 16);
  const auto exchange = [&](size_t a, size_t b) HWY_ATTR { Exchange(d, v[a], v[b]); };
  if constexpr (kSize == 2) {
    exchange(0, 1);
  } else if constexpr (kSize == 4) {
    exchange(0, 1), exchange(2, 3), exchange(0, 2), exchange(1, 3), exchange(1, 2);
  } else if constexpr (kSize == 8) {
    // 19 exchanges in 6 layers, the fewest there are.
    exchange(0, 2), exchange(1, 3), exchange(4, 6), exchange(5, 7);
    exchange(0, 4), exchange(1, 5), exchange(2, 6), exchange(3, 7);
    exchange(0, 1), exchange(2, 3), exchange(4, 5), exchange(6, 7);
    exchange(2, 4), exchange(3, 5);
    exchange(1, 4), exchange(3, 6);
    exchange(1, 2), exchange(3, 4), exchange(5, 6);
  } else if constexpr (kSize == 16) {
    SortList<8>(d, v);
    SortList<8>(d, v + 8);
    for (size_t i = 0; i < 8; ++i) exchange(i, 15 - i);
    SortBitonic<8>(d, v);
    SortBitonic<8>(d, v + 8);
  }
}

// Keeps in `a` the kSize greatest of two sorted lists, sorted; `rejected` collects the greatest of
// what is left out where kTrack is set.
template <size_t kSize, bool kTrack, class D, class V = hn::Vec<D>>
HWY_INLINE void MergeTop(D d, V* a, const V* b, V& rejected) {
  for (size_t i = 0; i < kSize; ++i) {
    V lesser = b[kSize - 1 - i];
    if constexpr (kTrack) {
      Exchange(d, a[i], lesser);
      rejected = hn::Max(rejected, lesser);
    } else {
      a[i] = hn::Max(a[i], lesser);
    }
  }
  SortBitonic<kSize>(d, a);
}

// The k-th greatest of the union of two sorted lists of kSize each, k <= 2 * kSize.
template <size_t kSize, class V>
HWY_INLINE V KthOfTwoLists(const V* a, const V* b, size_t k) {
  // With i taken from `a` and k - i from `b`, the lesser of the two last ones is at most the
  // answer, and for one i it is the answer.
  const size_t first = k > kSize ? k - kSize : 0;
  const size_t last = HWY_MIN(k, kSize);
  V best = first == 0 ? b[k - 1] : hn::Min(a[first - 1], b[k - first - 1]);
  for (size_t i = first + 1; i <= last; ++i) {
    best = hn::Max(best, i == k ? a[k - 1] : hn::Min(a[i - 1], b[k - i - 1]));
  }
  return best;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

#include "cpu/weight_cutoff.h"

namespace switchyard::cpu {

// Radix selection: reads the keys four times, needs no copy of them and leaves their order alone.
WeightCutoff find_weight_cutoff(const uint32_t* keys, int64_t num_keys, int64_t capacity) {
  if (capacity >= num_keys) return {0, num_keys};
  if (capacity <= 0) return {UINT32_MAX, 0};
  uint32_t prefix = 0;
  uint32_t prefix_mask = 0;
  int64_t wanted = capacity;  // of the keys that start with `prefix`
  for (int shift = 24; shift >= 0; shift -= 8) {
    int64_t counts[256] = {};
    for (int64_t i = 0; i < num_keys; ++i) {
      if ((keys[i] & prefix_mask) == prefix) ++counts[(keys[i] >> shift) & 0xff];
    }
    uint32_t digit = 255;
    for (; counts[digit] < wanted; --digit) wanted -= counts[digit];
    prefix |= digit << shift;
    prefix_mask |= 0xffu << shift;
  }
  return {prefix, wanted};
}

}  // namespace switchyard::cpu

// Numbers by chance that are the same everywhere.
#pragma once

#include <cstdint>

namespace switchyard::stats {

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
class Chance {
 public:
  explicit Chance(uint64_t seed) : state_(seed) {}

  /// In [0, bound), for bounds far below 2^64.
  int64_t below(int64_t bound) {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<int64_t>((z ^ (z >> 31)) % static_cast<uint64_t>(bound));
  }

 private:
  uint64_t state_;
};

}  // namespace switchyard::stats

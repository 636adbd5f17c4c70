// Random numbers that are the same with every standard library, so that a seed reproduces a
// failure.
#pragma once

#include <cmath>
#include <cstdint>

namespace switchyard::test {

/// SplitMix64.
class RandomStream {
 public:
  explicit RandomStream(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint32_t bits32() { return static_cast<uint32_t>(bits() >> 32); }

  /// In [0, bound); bound at least 1.
  int64_t below(int64_t bound) {
    return static_cast<int64_t>(bits() % static_cast<uint64_t>(bound));
  }
  /// One of the elements of a container.
  template <typename Container>
  const auto& pick(const Container& container) {
    return container[static_cast<size_t>(below(static_cast<int64_t>(std::size(container))))];
  }
  bool chance(int percent) { return below(100) < percent; }

  /// In (0, 1].
  double uniform() { return (static_cast<double>(bits() >> 11) + 1.0) * 0x1p-53; }
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }

 private:
  uint64_t state_;
};

}  // namespace switchyard::test

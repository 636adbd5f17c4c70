// A hash by which ranks see that they were configured alike.
#pragma once

#include <cstdint>

namespace switchyard::nccl {

class Fingerprint {
 public:
  /// Any integer; the order counts.
  void add(int64_t number) {
    // SplitMix64's finalizer (Steele et al. 2014), of a state that takes the numbers in.
    uint64_t bits = value_ + static_cast<uint64_t>(number) + 0x9e3779b97f4a7c15u;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    value_ = bits ^ (bits >> 31);
  }
  template <typename Range>
  void add_all(const Range& numbers) {
    add(static_cast<int64_t>(numbers.size()));
    for (const auto number : numbers) add(number);
  }
  [[nodiscard]] uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0;
};

}  // namespace switchyard::nccl

// Sums of real numbers that do not depend on the order of their terms.
#pragma once

#include <cmath>
#include <cstdint>

namespace switchyard {

/// A sum of numbers in [0, kMaxTerm], in units of 2^-64: adding up in any order, over threads,
/// ranks or windows of time, gives the same bits, and no term is too small beside what is there.
/// A term is cut to whole units, which is exact for 0 and from 2^-12 up. Wraps at 2^64.
struct ExactSum {
  static constexpr double kMaxTerm = 0x1p32;

  uint64_t whole = 0;
  uint64_t fraction = 0;  ///< in units of 2^-64

  /// Of a number in [0, kMaxTerm]; the caller checks.
  static ExactSum of(double term) {
    const auto integer = static_cast<uint64_t>(term);
    const double rest = term - static_cast<double>(integer);
    return {integer, static_cast<uint64_t>(rest * 0x1p64)};
  }

  void add(ExactSum other) {  // by value: it may be this one
    fraction += other.fraction;
    whole += other.whole + (fraction < other.fraction ? 1 : 0);
  }
  void add(double term) { add(of(term)); }

  [[nodiscard]] double value() const {
    return static_cast<double>(whole) + static_cast<double>(fraction) * 0x1p-64;
  }
  bool operator==(const ExactSum&) const = default;
};

}  // namespace switchyard

// A residency bonus that follows a wanted hit rate.
#pragma once

#include <cstdint>

namespace switchyard {

struct BonusControllerConfig {
  double target_hit_rate = 0.7;  ///< in [0, 1]
  double rate = 1.0;             ///< a step is rate * 0.01; finite, 0 or more
  float initial_bonus = 0.15f;   ///< in [0, max_bonus]
  float max_bonus = 1.0f;        ///< in [0, 1]
  int64_t window = 256;          ///< accesses between two steps, 1 or more

  bool operator==(const BonusControllerConfig&) const = default;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const BonusControllerConfig& config);

/// After every window of accesses the bonus takes a step: up where the window's hit rate was below
/// the target, down where it was more than 0.05 above it, and none in between; it stays in
/// [0, max_bonus]. The rate is that of the window and not of all time, so that the bonus follows
/// the traffic and does not swing for as long as it has run. How much the choice may suffer is not
/// this object's to say: ResidencyPreference bounds it, whatever the bonus.
class BonusController {
 public:
  static constexpr double kTolerance = 0.05;
  static constexpr double kStep = 0.01;

  /// @throws InvalidArgument  when `config` is refused by validate().
  explicit BonusController(const BonusControllerConfig& config);

  [[nodiscard]] const BonusControllerConfig& config() const { return config_; }
  [[nodiscard]] float bonus() const { return bonus_; }

  /// Adds accesses; the last of a window makes the step.
  /// @throws InvalidArgument  for a count below 0.
  void observe(int64_t hits, int64_t misses);
  void reset();

 private:
  BonusControllerConfig config_;
  float bonus_;
  int64_t hits_ = 0;
  int64_t accesses_ = 0;
};

}  // namespace switchyard

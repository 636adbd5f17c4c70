#include "switchyard/bonus_controller.h"

#include <algorithm>
#include <cmath>

#include "cpu/refuse.h"

namespace switchyard {

using cpu::refuse;

namespace {

void check_share(const char* name, double value) {
  if (!(value >= 0.0 && value <= 1.0)) refuse(name, " is ", value, ", must be in [0, 1]");
}

}  // namespace

void validate(const BonusControllerConfig& config) {
  check_share("target_hit_rate", config.target_hit_rate);
  if (!std::isfinite(config.rate) || config.rate < 0.0) {
    refuse("rate is ", config.rate, ", must be finite and 0 or more");
  }
  check_share("max_bonus", config.max_bonus);
  if (!(config.initial_bonus >= 0.0f && config.initial_bonus <= config.max_bonus)) {
    refuse("initial_bonus is ", config.initial_bonus, ", must be in [0, ", config.max_bonus, "]");
  }
  if (config.window < 1) refuse("window is ", config.window, ", must be 1 or more");
}

BonusController::BonusController(const BonusControllerConfig& config)
    : config_((validate(config), config)), bonus_(config.initial_bonus) {}

void BonusController::observe(int64_t hits, int64_t misses) {
  if (hits < 0) refuse("hits is ", hits, ", must be 0 or more");
  if (misses < 0) refuse("misses is ", misses, ", must be 0 or more");
  hits_ += hits;
  accesses_ += hits + misses;
  if (accesses_ < config_.window) return;
  const double hit_rate = static_cast<double>(hits_) / static_cast<double>(accesses_);
  const auto step = static_cast<float>(config_.rate * kStep);
  if (hit_rate < config_.target_hit_rate) {
    bonus_ = std::min(bonus_ + step, config_.max_bonus);
  } else if (hit_rate > config_.target_hit_rate + kTolerance) {
    bonus_ = std::max(bonus_ - step, 0.0f);
  }
  hits_ = 0;
  accesses_ = 0;
}

void BonusController::reset() { *this = BonusController(config_); }

}  // namespace switchyard

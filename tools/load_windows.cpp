#include "tools/load_windows.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "switchyard/errors.h"
#include "tools/placement_options.h"

namespace switchyard::tools {
namespace {

constexpr int64_t kMaxWindows = 100'000;
constexpr int64_t kMaxCounts = int64_t{1} << 28;
constexpr int64_t kDefaultWindows = 20;
constexpr int64_t kDefaultAssignments = 1'000'000;

/// SplitMix64, and normal numbers by Box and Muller's formula.
class Chance {
 public:
  explicit Chance(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return (static_cast<double>(bits() >> 11) + 1.0) * 0x1p-53; }
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
  }

 private:
  uint64_t state_;
};

}  // namespace

LoadWindows::LoadWindows(const ExpertLoads& loads, const LoadWindowOptions& options)
    : num_layers_(loads.num_layers()),
      num_experts_(loads.num_experts()),
      made_up_(loads.num_tokens() == 0) {
  check_range("--window", options.window, 0, int64_t{1} << 40);
  check_range("--windows", options.num_windows, 0, kMaxWindows);
  check_range("--shift-every", options.shift_every, 0, kMaxWindows);
  if (!std::isfinite(options.drift) || options.drift < 0.0 || options.drift > 10.0) {
    throw InvalidArgument("--drift is " + std::to_string(options.drift) + ", must be in [0, 10]");
  }
  if (made_up_) {
    make_up(loads, options);
  } else {
    cut(loads, options);
  }
}

std::span<const int64_t> LoadWindows::counts(int64_t window, int64_t layer) const {
  const std::vector<int64_t>& all = windows_[static_cast<std::size_t>(window)];
  return std::span(all).subspan(static_cast<std::size_t>(layer * num_experts_),
                                static_cast<std::size_t>(num_experts_));
}

void LoadWindows::cut(const ExpertLoads& loads, const LoadWindowOptions& options) {
  const int64_t num_tokens = loads.num_tokens();
  const int64_t wanted = options.num_windows == 0 ? kDefaultWindows : options.num_windows;
  window_ = options.window == 0 ? std::max<int64_t>(1, num_tokens / wanted) : options.window;
  int64_t count = num_tokens / window_;
  if (options.num_windows > 0) count = std::min(count, options.num_windows);
  if (count < 2) {
    throw InvalidArgument(loads.path() + " has " + std::to_string(num_tokens) +
                          " tokens, two windows of " + std::to_string(window_) + " need more");
  }
  for (int64_t i = 0; i < count; ++i) {
    const bool last = i + 1 == count && options.num_windows == 0;
    const int64_t end = last ? num_tokens : (i + 1) * window_;
    tokens_.push_back(end - i * window_);
    windows_.push_back(loads.counts(i * window_, end));
  }
}

void LoadWindows::make_up(const ExpertLoads& loads, const LoadWindowOptions& options) {
  window_ = options.window == 0 ? kDefaultAssignments : options.window;
  const int64_t count = options.num_windows == 0 ? kDefaultWindows : options.num_windows;
  check_range("--windows", count, 2, kMaxCounts / (num_layers_ * num_experts_));
  Chance chance(options.seed);
  std::vector<double> now(loads.view().data, loads.view().data + num_layers_ * num_experts_);
  for (int64_t i = 0; i < count; ++i) {
    std::vector<int64_t> counts(now.size());
    const bool shifts = i > 0 && options.shift_every > 0 && i % options.shift_every == 0;
    for (int64_t layer = 0; layer < num_layers_; ++layer) {
      double* row = now.data() + layer * num_experts_;
      if (shifts) {
        for (int64_t left = num_experts_; left > 1; --left) {
          std::swap(row[left - 1], row[chance.bits() % static_cast<uint64_t>(left)]);
        }
      }
      double total = 0.0;
      for (int64_t expert = 0; expert < num_experts_; ++expert) {
        if (i > 0) row[expert] *= std::exp(options.drift * chance.normal());
        total += row[expert];
      }
      for (int64_t expert = 0; expert < num_experts_ && total > 0.0; ++expert) {
        row[expert] /= total;
        const double mean = row[expert] * static_cast<double>(window_);
        const double drawn = std::round(mean + std::sqrt(mean) * chance.normal());
        counts[static_cast<std::size_t>(layer * num_experts_ + expert)] =
            static_cast<int64_t>(std::max(0.0, drawn));
      }
    }
    tokens_.push_back(window_);
    windows_.push_back(std::move(counts));
  }
}

}  // namespace switchyard::tools

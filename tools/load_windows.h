// Loads over time, window by window: a trace's tokens in turn, or made-up drift of given loads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tools/expert_loads.h"

namespace switchyard::tools {

struct LoadWindowOptions {
  int64_t window = 0;       ///< tokens of a trace, or assignments a layer; 0: a default
  int64_t num_windows = 0;  ///< 0: a default; a trace has as many as its tokens fill
  double drift = 0.1;       ///< of made-up loads, see LoadWindows
  int64_t shift_every = 0;  ///< windows after which made-up loads change for good; 0: never
  uint64_t seed = 1;
};

/// A trace is cut into windows of tokens, the last of which takes the rest as well. From loads,
/// windows are made up: the loads' logarithms take a random walk, by `drift` times a normal number
/// from window to window, and every `shift_every` windows all experts of a layer trade their loads
/// at random; then each window counts assignments drawn from them.
class LoadWindows {
 public:
  /// @throws InvalidArgument  for fewer than 2 windows, or options that do not fit.
  LoadWindows(const ExpertLoads& loads, const LoadWindowOptions& options);

  [[nodiscard]] int64_t num_windows() const { return static_cast<int64_t>(windows_.size()); }
  [[nodiscard]] int64_t num_layers() const { return num_layers_; }
  [[nodiscard]] int32_t num_experts() const { return num_experts_; }
  /// Tokens of a trace, or assignments a layer.
  [[nodiscard]] int64_t window() const { return window_; }
  [[nodiscard]] bool is_made_up() const { return made_up_; }

  /// Of one window; made up, each assignment is a token.
  [[nodiscard]] int64_t num_tokens(int64_t window) const {
    return tokens_[static_cast<std::size_t>(window)];
  }
  /// [num_experts] assignments.
  [[nodiscard]] std::span<const int64_t> counts(int64_t window, int64_t layer) const;

 private:
  void cut(const ExpertLoads& loads, const LoadWindowOptions& options);
  void make_up(const ExpertLoads& loads, const LoadWindowOptions& options);

  int64_t num_layers_;
  int32_t num_experts_;
  int64_t window_ = 0;
  bool made_up_;
  std::vector<int64_t> tokens_;
  std::vector<std::vector<int64_t>> windows_;  ///< each [num_layers, num_experts]
};

}  // namespace switchyard::tools

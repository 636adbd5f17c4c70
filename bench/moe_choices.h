// Which experts the tokens of a measurement go to.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/tensor_view.h"

namespace switchyard::bench {

struct ChoiceOptions {
  std::string model = "deepseek-v3";  ///< preset; num_experts and top_k
  std::string trace;                  ///< the choices of this file instead
  int32_t layer = -1;                 ///< of it; -1: its first
  double zipf = 0.0;                  ///< experts' popularity falls as 1 / place^zipf
  uint64_t seed = 1;
};

/// Endless choices, the same on every rank.
class MoeChoices {
 public:
  /// @throws InvalidArgument, IoError  for an unknown model, a trace that cannot be read, or one
  ///                                   that does not say how to choose.
  explicit MoeChoices(const ChoiceOptions& options);

  [[nodiscard]] int32_t num_experts() const { return num_experts_; }
  [[nodiscard]] int32_t top_k() const { return top_k_; }
  /// For the program's header.
  [[nodiscard]] const std::string& description() const { return description_; }

  /// Expert ids of tokens [first, first + count): [count, top_k]. A trace begins anew at its end.
  [[nodiscard]] std::vector<int32_t> tokens(int64_t first, int64_t count) const;

 private:
  void read(const ChoiceOptions& options);

  uint64_t seed_;
  int32_t num_experts_ = 0;
  int32_t top_k_ = 0;
  std::string description_;
  std::vector<int32_t> trace_ids_;        // [tokens of the trace, top_k]
  std::vector<double> log_popularities_;  // [num_experts]
};

}  // namespace switchyard::bench

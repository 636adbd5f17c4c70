// What a routing benchmark runs over: a configuration, distinct rows of logits, outputs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/buffer.h"
#include "switchyard/router.h"

namespace switchyard::bench {

/// How the logits of a batch look.
enum class Logits { kNormal, kAllEqual, kAllDenormal, kAllNan };

/// A configuration to measure. Presets that leave a field open take renormalisation and scale 1.
struct RoutingCase {
  std::string name;
  RouterConfig config;
  bool has_bias = false;
};

std::vector<RoutingCase> preset_cases();
RoutingCase softmax_case(int32_t num_experts, int32_t top_k, bool renormalize = true);

/// Rows of one case, at least 1 MiB of them so that no cache below the second level holds them all,
/// handed out `num_tokens` at a time.
class RoutingBatch {
 public:
  RoutingBatch(const RoutingCase& routing_case, int64_t num_tokens, DataType dtype,
               Logits kind = Logits::kNormal);

  [[nodiscard]] const RouterConfig& config() const { return config_; }
  [[nodiscard]] int64_t num_tokens() const { return num_tokens_; }
  [[nodiscard]] int64_t bytes() const;  ///< read and written for one call

  /// Moves on to the next rows.
  void advance() { first_ = first_ + 2 * num_tokens_ <= num_rows_ ? first_ + num_tokens_ : 0; }
  [[nodiscard]] ConstTensorView logits() const;
  [[nodiscard]] const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }
  [[nodiscard]] RoutingInputs inputs() const;
  [[nodiscard]] RoutingResult result();
  [[nodiscard]] int32_t* expert_ids() { return expert_ids_.data(); }
  [[nodiscard]] float* gate_weights() { return gate_weights_.data(); }

  /// Routes the first of the current rows by the reference; throws when a bit of the outputs
  /// differs.
  void check_outputs();

 private:
  RouterConfig config_;
  int64_t num_tokens_;
  int64_t num_rows_;
  int64_t first_ = 0;
  DataType dtype_;
  std::vector<float> float_logits_;
  std::vector<BFloat16> narrow_logits_;
  std::vector<float> bias_;
  Buffer<int32_t> expert_ids_;
  Buffer<float> gate_weights_;
};

}  // namespace switchyard::bench

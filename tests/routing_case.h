// One batch to route: how it is made, run on a router, and compared bit by bit.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "switchyard/router.h"
#include "tests/routing_inputs.h"

namespace switchyard::test {

struct RoutingCase {
  RouterConfig config;
  int64_t num_tokens = 0;
  Distribution distribution = Distribution::kNormal;
  DataType dtype = DataType::kFloat32;
  DataType weight_dtype = DataType::kFloat32;
  bool with_bias = false;
  bool with_token_mask = false;
  bool with_expert_mask = false;
  int percent_resident = 0;         ///< of the experts, for `residency`; 0: no preference
  ResidencyPreference residency{};  ///< without resident_experts, which the batch makes
  int64_t logits_padding = 0;       ///< row_stride - cols
  int64_t output_padding = 0;
  bool with_losses = true;
  bool with_counts = true;
  uint64_t seed = 1;
};

/// Every field, for failure messages.
std::string describe(const RoutingCase& routing_case);

/// A case's inputs, which it owns.
class RoutingBatch {
 public:
  explicit RoutingBatch(const RoutingCase& routing_case);

  /// Rows [begin, end), all of them by default.
  [[nodiscard]] RoutingInputs inputs() const { return inputs(0, num_tokens_); }
  [[nodiscard]] RoutingInputs inputs(int64_t begin, int64_t end) const;

  [[nodiscard]] const Logits& logits() const { return logits_; }
  [[nodiscard]] const BackendVector<float>& selection_bias() const { return selection_bias_; }
  [[nodiscard]] const BackendVector<uint8_t>& token_mask() const { return token_mask_; }
  [[nodiscard]] const BackendVector<uint8_t>& expert_mask() const { return expert_mask_; }
  [[nodiscard]] const BackendVector<uint8_t>& resident_experts() const { return resident_; }

 private:
  int64_t num_tokens_;
  Logits logits_;
  BackendVector<float> selection_bias_;
  BackendVector<uint8_t> token_mask_;
  BackendVector<uint8_t> expert_mask_;
  ResidencyPreference residency_;
  BackendVector<uint8_t> resident_;
};

/// What a router wrote, rows packed. Weights are bit patterns, bfloat16 ones in the low half.
struct RoutedBatch {
  int64_t num_slots = 0;
  std::vector<int32_t> expert_ids;
  std::vector<uint32_t> gate_weights;
  std::vector<int64_t> tokens_per_expert;
  int64_t num_degenerate_rows = 0;
  std::vector<int64_t> loss_sums;
  std::vector<uint32_t> sacrificed_mass;  ///< bit patterns; of cases with a preference
  bool guards_intact = true;
};

/// What a call writes to a case's guarded results, with a workspace of that many bytes.
using RouteCall = std::function<void(const RoutingResult&, std::span<std::byte> workspace)>;
RoutedBatch route_guarded(const RoutingCase& routing_case, const RoutingInputs& inputs,
                          int64_t workspace_bytes, const RouteCall& call);

RoutedBatch route(const Router& router, const RoutingCase& routing_case,
                  const RoutingInputs& inputs);
RoutedBatch route(const Router& router, const RoutingCase& routing_case);

/// The first difference in words; empty: the same bits.
std::string difference(const RoutedBatch& expected, const RoutedBatch& actual);

}  // namespace switchyard::test

// What one call to the CUDA router asks of its kernels, in plain fields.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/intrinsics.cuh"
#include "switchyard/router.h"

namespace switchyard::cuda {

/// Of which type the rows are that route_usual_row() takes: none where more is asked than it knows.
enum class UsualRows : int32_t { kNone, kFloat32, kFloat16, kBFloat16 };

/// One batch to route. Views are those of RoutingInputs and RoutingResult, already checked; null
/// pointers stand for what is not given or not wanted.
struct RouteTask {
  RouterConfig config;
  ConstTensorView logits;
  const float* bias = nullptr;
  const uint8_t* token_mask = nullptr;
  const uint8_t* expert_mask = nullptr;
  MatrixView<int32_t> expert_ids;
  TensorView gate_weights;
  unsigned long long* tokens_per_expert = nullptr;
  unsigned long long* num_degenerate_rows = nullptr;
  unsigned long long* loss_sums = nullptr;
  ResidencyPreference residency{};
  float* sacrificed_mass = nullptr;
  /// The choice is made on the logits themselves: softmax is monotone, so without a bias or sums of
  /// probabilities no exponential is needed.
  bool on_logits = false;
  /// Rows may be read by vectors of up to four logits.
  bool aligned_rows = false;
  int32_t group_terms = 0;  ///< members whose sum scores a group; 0: all groups stay
  int32_t group_lanes = 0;  ///< of usual rows, 2 to which power a group is
  UsualRows usual_rows = UsualRows::kNone;
  /// The launch before zeroes the sums, and this one starts beside it.
  bool beside_clearing = false;

  [[nodiscard]] SWITCHYARD_HOST_DEVICE bool has_sums() const {
    return tokens_per_expert != nullptr || num_degenerate_rows != nullptr || loss_sums != nullptr;
  }
  /// Whether anything about residency is left to do for rows that are routed.
  [[nodiscard]] bool has_preference() const {
    return residency.is_active() || sacrificed_mass != nullptr;
  }
};

/// Whether all rows start where vectors of `count` elements may be loaded, and are whole vectors.
inline bool rows_take_vectors(const ConstTensorView& logits, int64_t count) {
  const int64_t bytes = count * size_of(logits.dtype);
  return logits.cols % count == 0 && logits.row_stride % count == 0 &&
         reinterpret_cast<std::uintptr_t>(logits.data) % static_cast<std::size_t>(bytes) == 0;
}

/// 64-bit counts as atomics take them.
inline unsigned long long* counters(int64_t* values) {
  return reinterpret_cast<unsigned long long*>(values);
}

}  // namespace switchyard::cuda

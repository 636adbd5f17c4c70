// One row of logits in the registers of a warp.
#pragma once

#include "cuda/intrinsics.cuh"
#include "cuda/numerics.cuh"
#include "cuda/routing_task.cuh"
#include "switchyard/numerics.h"

namespace switchyard::cuda {

/// Where a warp keeps a row: up to four neighbouring experts in a lane, so that a lane loads them
/// at once, and neighbouring lanes side by side.
template <int kPerLane>
struct RowLayout {
  static constexpr int kVector = kPerLane < 4 ? kPerLane : 4;
  static constexpr int kChunks = kPerLane / kVector;

  /// The expert of a lane's element; larger elements of a lane are larger experts.
  __device__ static int expert_of(int element, int lane) {
    return element / kVector * kVector * kWarpSize + lane * kVector + element % kVector;
  }
};

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) PackedElements {
  T values[kCount];
};

/// Loads a row, widened; what lies behind it is -inf.
template <int kPerLane, typename T>
__device__ void load_row(const T* row, int num_experts, bool aligned, float (&x)[kPerLane]) {
  using Layout = RowLayout<kPerLane>;
  using Packed = PackedElements<T, Layout::kVector>;
  const int lane = lane_index();
#pragma unroll
  for (int chunk = 0; chunk < Layout::kChunks; ++chunk) {
    const int element = chunk * Layout::kVector;
    const int expert = Layout::expert_of(element, lane);
    if (aligned) {
      if (expert < num_experts) {
        const Packed packed = load_vector(reinterpret_cast<const Packed*>(row + expert));
#pragma unroll
        for (int j = 0; j < Layout::kVector; ++j) x[element + j] = widen(packed.values[j]);
      } else {
#pragma unroll
        for (int j = 0; j < Layout::kVector; ++j) x[element + j] = minus_infinity();
      }
    } else {
#pragma unroll
      for (int j = 0; j < Layout::kVector; ++j) {
        x[element + j] = expert + j < num_experts ? widen(row[expert + j]) : minus_infinity();
      }
    }
  }
}

/// A token's row, widened; -inf for logits that are NaN or infinite, and behind the row.
template <int kPerLane>
__device__ void load_finite_row(const ConstTensorView& logits, int64_t token, bool aligned,
                                float (&x)[kPerLane]) {
  const auto num_experts = static_cast<int>(logits.cols);
  if (logits.dtype == DataType::kFloat32) {
    load_row(logits.as<float>().row(token), num_experts, aligned, x);
  } else if (logits.dtype == DataType::kFloat16) {
    load_row(logits.as<Float16>().row(token), num_experts, aligned, x);
  } else {
    load_row(logits.as<BFloat16>().row(token), num_experts, aligned, x);
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (!is_finite(x[i])) x[i] = minus_infinity();
  }
}

/// The row of a token: -inf for masked experts and for logits that are NaN or infinite.
template <int kPerLane>
__device__ void load_clean_row(const RouteTask& task, int64_t token, float (&x)[kPerLane]) {
  load_finite_row(task.logits, token, task.aligned_rows, x);
  if (task.expert_mask == nullptr) return;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int expert = RowLayout<kPerLane>::expert_of(i, lane_index());
    if (expert < task.config.num_experts && task.expert_mask[expert] == 0) x[i] = minus_infinity();
  }
}

/// The row's greatest logit in every lane; -inf where there is none.
template <int kPerLane>
__device__ float row_max(const float (&x)[kPerLane]) {
  float best = x[0];
#pragma unroll
  for (int i = 1; i < kPerLane; ++i) best = x[i] > best ? x[i] : best;
  return float_of_key(__reduce_max_sync(kAllLanes, ordered_key(best)));
}

/// The first levels of the contract's sum: the chunks of element j, folded without keeping more
/// than a few partial sums.
template <int kPerLane, int kWidth, typename Term>
__device__ float fold_chunks(const Term& term, int chunk, int j) {
  using Layout = RowLayout<kPerLane>;
  if constexpr (kWidth == Layout::kChunks) {
    return term(chunk * Layout::kVector + j);
  } else {
    return fold_chunks<kPerLane, 2 * kWidth>(term, chunk, j) +
           fold_chunks<kPerLane, 2 * kWidth>(term, chunk + kWidth, j);
  }
}

/// Adds lane l + half to lane l for half = 16, 8, … 1; every lane gets the sum.
__device__ inline float fold_lanes(float value) {
#pragma unroll
  for (int half = kWarpSize / 2; half > 0; half /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, half);
  }
  return value;
}

/// The contract's sum over a row, in every lane: term(i) is that of the lane's element i, 0 where
/// there is no expert. Experts count from the top bit down: chunks, then lanes, then elements.
template <int kPerLane, typename Term>
__device__ float folded_row_sum(const Term& term) {
  constexpr int kVector = RowLayout<kPerLane>::kVector;
  float sums[kVector];
#pragma unroll
  for (int j = 0; j < kVector; ++j) sums[j] = fold_chunks<kPerLane, 1>(term, 0, j);
  if constexpr (kVector == 4) {
    // Halves of the warp take two elements each, then quarters one: 8 shuffles instead of 20.
    const int lane = lane_index();
    const bool upper = (lane & 16) != 0;
    float even = upper ? sums[2] : sums[0];
    float odd = upper ? sums[3] : sums[1];
    even += __shfl_xor_sync(kAllLanes, upper ? sums[0] : sums[2], 16);
    odd += __shfl_xor_sync(kAllLanes, upper ? sums[1] : sums[3], 16);
    const bool takes_odd = (lane & 8) != 0;
    float sum = takes_odd ? odd : even;
    sum += __shfl_xor_sync(kAllLanes, takes_odd ? even : odd, 8);
    for (int half = 4; half > 0; half /= 2) sum += __shfl_xor_sync(kAllLanes, sum, half);
    sum += __shfl_xor_sync(kAllLanes, sum, 16);
    return sum + __shfl_xor_sync(kAllLanes, sum, 8);
  } else if constexpr (kVector == 2) {
    return fold_lanes(sums[0]) + fold_lanes(sums[1]);
  } else {
    return fold_lanes(sums[0]);
  }
}

/// sum of exp_or_zero(x - max) over a clean row, in every lane.
template <int kPerLane>
__device__ float row_denominator(const float (&x)[kPerLane], float max) {
  return folded_row_sum<kPerLane>([&](int i) { return numerics::exp_or_zero(x[i] - max); });
}

/// The score of one finite logit, any function but softmax.
__device__ inline float score_of(ScoreFunction function, float logit) {
  switch (function) {
    case ScoreFunction::kSigmoid:
      return sigmoid(logit);
    case ScoreFunction::kSqrtSoftplus:
      return numerics::sqrt_softplus(logit);
    case ScoreFunction::kSoftmax:
    case ScoreFunction::kIdentity:
      break;
  }
  return logit + 0.0f;  // -0 becomes +0
}

/// A clean row's scores in place of its logits, -inf where there is none. Softmax: probabilities.
template <int kPerLane>
__device__ void score_row(const RouteTask& task, float max, float denominator,
                          float (&x)[kPerLane]) {
  const ScoreFunction function = task.config.score_function;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    if (!is_finite(x[i])) continue;
    x[i] = function == ScoreFunction::kSoftmax ? numerics::exp_or_zero(x[i] - max) / denominator
                                               : score_of(function, x[i]);
  }
}

}  // namespace switchyard::cuda

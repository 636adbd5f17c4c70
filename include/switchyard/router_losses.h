// Auxiliary sums of a routed batch, for training and for watching a router's health.
#pragma once

#include <cstdint>

#include "switchyard/buffer.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// What the sums of a batch say about its router.
struct RouterLosses {
  /// Switch load-balance loss, E * sum_i f_i * P_i (Fedus et al. 2021, arXiv 2101.03961), where f_i
  /// is the share of assignments that expert i got and P_i its mean probability. 1 when balanced.
  double balance_loss = 0.0;
  /// Mean of logsumexp(logits)^2 (Zoph et al. 2022, arXiv 2202.08906).
  double z_loss = 0.0;
  /// [num_experts] P_i: softmax over the row, or the row's scores divided by their sum.
  Buffer<double> mean_probability;
  /// Tokens that the means are over: unmasked and with at least one finite, enabled logit.
  int64_t num_tokens = 0;
};

/// Elements of RoutingResult::loss_sums. They are fixed-point integers, so adding them up in any
/// order, over threads, blocks or batches, gives the same bits.
constexpr int64_t router_loss_sums_size(int32_t num_experts) { return int64_t{num_experts} + 3; }

/// Where the sums live inside loss_sums.
struct RouterLossLayout {
  static constexpr int64_t kTokens = 0;       ///< tokens counted
  static constexpr int64_t kZWhole = 1;       ///< sum of floor(logsumexp^2)
  static constexpr int64_t kZFraction = 2;    ///< sum of the fractions, in units of 2^-31
  static constexpr int64_t kProbability = 3;  ///< E sums of probabilities, in units of 2^-30
  static constexpr double kFractionUnit = 0x1p-31;
  static constexpr double kProbabilityUnit = 0x1p-30;
  static constexpr double kMaxLogSumExp = 32768.0;  ///< |logsumexp| saturates here
};

/// The losses alone, as in RouterLosses.
struct RouterLossValues {
  double balance_loss = 0.0;
  double z_loss = 0.0;
  int64_t num_tokens = 0;
};

/// finalize_router_losses() without the probabilities, and so without an allocation.
/// @throws InvalidArgument  as that.
RouterLossValues router_loss_values(VectorView<const int64_t> loss_sums,
                                    VectorView<const int64_t> tokens_per_expert);

/// Turns the sums of one batch, or of several added element by element, into losses.
///
/// @param loss_sums          [router_loss_sums_size(E)], host memory.
/// @param tokens_per_expert  [E or more], host memory, the counts of the same batches; the first E
///                           are used.
/// All losses are 0 when no token was counted.
///
/// @throws InvalidArgument  when the sizes disagree, naming both.
RouterLosses finalize_router_losses(VectorView<const int64_t> loss_sums,
                                    VectorView<const int64_t> tokens_per_expert);

}  // namespace switchyard

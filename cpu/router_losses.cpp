#include "switchyard/router_losses.h"

#include "cpu/refuse.h"

namespace switchyard {

using cpu::refuse;

namespace {

double mean_probability(VectorView<const int64_t> loss_sums, int64_t expert) {
  using Layout = RouterLossLayout;
  const auto sum = static_cast<double>(loss_sums[Layout::kProbability + expert]);
  return sum * Layout::kProbabilityUnit / static_cast<double>(loss_sums[Layout::kTokens]);
}

}  // namespace

RouterLossValues router_loss_values(VectorView<const int64_t> loss_sums,
                                    VectorView<const int64_t> tokens_per_expert) {
  using Layout = RouterLossLayout;
  const int64_t num_experts = loss_sums.size - Layout::kProbability;
  if (num_experts < 1) {
    refuse("loss_sums has ", loss_sums.size, " elements, must have at least ",
           Layout::kProbability + 1);
  }
  if (loss_sums.data == nullptr) refuse("loss_sums is a null pointer");
  if (tokens_per_expert.size < num_experts) {
    refuse("tokens_per_expert has ", tokens_per_expert.size, " elements, must have at least the ",
           num_experts, " of loss_sums");
  }
  if (tokens_per_expert.data == nullptr) refuse("tokens_per_expert is a null pointer");

  RouterLossValues losses;
  losses.num_tokens = loss_sums[Layout::kTokens];
  if (losses.num_tokens == 0) return losses;

  losses.z_loss = (static_cast<double>(loss_sums[Layout::kZWhole]) +
                   static_cast<double>(loss_sums[Layout::kZFraction]) * Layout::kFractionUnit) /
                  static_cast<double>(losses.num_tokens);
  int64_t assignments = 0;
  double weighted = 0.0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    assignments += tokens_per_expert[expert];
    weighted +=
        static_cast<double>(tokens_per_expert[expert]) * mean_probability(loss_sums, expert);
  }
  if (assignments != 0) {
    losses.balance_loss =
        static_cast<double>(num_experts) * weighted / static_cast<double>(assignments);
  }
  return losses;
}

RouterLosses finalize_router_losses(VectorView<const int64_t> loss_sums,
                                    VectorView<const int64_t> tokens_per_expert) {
  const RouterLossValues values = router_loss_values(loss_sums, tokens_per_expert);
  RouterLosses losses{values.balance_loss, values.z_loss,
                      Buffer<double>(loss_sums.size - RouterLossLayout::kProbability),
                      values.num_tokens};
  if (losses.num_tokens == 0) return losses;
  for (int64_t expert = 0; expert < losses.mean_probability.size(); ++expert) {
    losses.mean_probability[expert] = mean_probability(loss_sums, expert);
  }
  return losses;
}

}  // namespace switchyard

#include "switchyard/router_losses.h"

#include "cpu/refuse.h"

namespace switchyard {

using cpu::refuse;

RouterLosses finalize_router_losses(VectorView<const int64_t> loss_sums,
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

  RouterLosses losses;
  losses.mean_probability = Buffer<double>(num_experts);
  losses.num_tokens = loss_sums[Layout::kTokens];
  if (losses.num_tokens == 0) return losses;

  const auto num_tokens = static_cast<double>(losses.num_tokens);
  losses.z_loss = (static_cast<double>(loss_sums[Layout::kZWhole]) +
                   static_cast<double>(loss_sums[Layout::kZFraction]) * Layout::kFractionUnit) /
                  num_tokens;
  int64_t assignments = 0;
  double weighted = 0.0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    const auto sum = static_cast<double>(loss_sums[Layout::kProbability + expert]);
    losses.mean_probability[expert] = sum * Layout::kProbabilityUnit / num_tokens;
    assignments += tokens_per_expert[expert];
    weighted += static_cast<double>(tokens_per_expert[expert]) * losses.mean_probability[expert];
  }
  if (assignments != 0) {
    losses.balance_loss =
        static_cast<double>(num_experts) * weighted / static_cast<double>(assignments);
  }
  return losses;
}

}  // namespace switchyard

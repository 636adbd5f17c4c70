// Expert choice routing: experts pick tokens (Zhou et al. 2022, arXiv 2202.09368).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "switchyard/data_type.h"
#include "switchyard/executor.h"
#include "switchyard/router.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// What the softmax of expert choice is taken over.
enum class ExpertChoiceScore : uint8_t {
  kSoftmaxOverExperts,  ///< each token's row, as in the paper
  kSoftmaxOverTokens,   ///< each expert's column; ranked by the logits, which have its order
};

struct ExpertChoiceConfig {
  int32_t num_experts = 0;       ///< 1 to 2048
  double capacity_factor = 1.0;  ///< mean experts a token; finite and above 0
  int64_t fixed_capacity = 0;    ///< tokens an expert takes; 0: from capacity_factor
  ExpertChoiceScore score = ExpertChoiceScore::kSoftmaxOverExperts;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const ExpertChoiceConfig& config);

/// Tokens that each expert takes: fixed_capacity, or max(1, floor(factor * T / E)), at most T.
/// @throws InvalidArgument  when `config` is refused or `num_tokens` is below 0.
int64_t expert_choice_capacity(const ExpertChoiceConfig& config, int64_t num_tokens);

/// Bytes of workspace that route_expert_choice() needs for up to `max_tokens` tokens with the same
/// backend and threads.
int64_t expert_choice_workspace_bytes(const ExpertChoiceConfig& config, int64_t max_tokens,
                                      Backend backend = Backend::kAuto, CpuThreads threads = {});

/// Lets every expert choose its best tokens.
///
/// Higher score first, equal scores by the lower token; a non-finite logit scores 0 and ranks below
/// every finite one, by the lower token. Masked tokens are chosen by nobody and are in no sum:
/// where fewer than `capacity` tokens are left, the rest of the expert's row is -1 at weight 0. The
/// sums of the softmax fold as in Router, over all E experts or all T tokens; exponentials that
/// would be subnormal count as 0. The same bits on every backend and thread count.
///
/// @param logits        [num_tokens, num_experts], any DataType; fewer than 2^31 tokens.
/// @param token_mask    [num_tokens] or empty; 0: padding.
/// @param token_ids     [num_experts, expert_choice_capacity()].
/// @param gate_weights  the same shape: the scores of the chosen tokens.
/// @throws InvalidArgument  when a shape disagrees, naming the argument and both numbers.
/// Never allocates.
void route_expert_choice(const ExpertChoiceConfig& config, ConstTensorView logits,
                         VectorView<const uint8_t> token_mask, MatrixView<int32_t> token_ids,
                         MatrixView<float> gate_weights, std::span<std::byte> workspace,
                         Backend backend = Backend::kAuto, CpuThreads threads = {},
                         StreamView stream = {});

}  // namespace switchyard

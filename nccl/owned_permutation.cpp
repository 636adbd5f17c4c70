#include "nccl/owned_permutation.h"

#include <algorithm>

namespace switchyard::nccl {

void OwnedPermutation::resize(const Permuter& permuter, int64_t num_tokens) {
  const PermutationConfig& config = permuter.config();
  const PermutationSizes sizes = permuter.sizes(num_tokens);
  if (num_tokens > capacity_) {
    grow(tokens_per_expert_, config.num_local(), backend_);
    grow(expert_offsets_, config.num_local() + 1, backend_);
    grow(row_to_assignment_, sizes.num_rows, backend_);
    grow(assignment_to_row_, num_tokens * config.top_k, backend_);
    grow(block_experts_, sizes.num_blocks, backend_);
    capacity_ = num_tokens;
  }
  view_ = {.tokens_per_expert = tokens_per_expert_.view(),
           .expert_offsets = expert_offsets_.view(),
           .row_to_assignment = {row_to_assignment_.data(), sizes.num_rows},
           .assignment_to_row = assignment_to_row_.matrix(num_tokens, config.top_k),
           .block_experts = {block_experts_.data(), sizes.num_blocks},
           .totals = totals_.data()};
}

void OwnedPermutation::keep_as_one_expert(int64_t num_rows) {
  view_.tokens_per_expert[0] = num_rows;
  view_.expert_offsets[0] = 0;
  view_.expert_offsets[1] = num_rows;
  *view_.totals = {.num_rows = num_rows, .kept_assignments = num_rows};
}

}  // namespace switchyard::nccl

#include "nccl/owned_permutation.h"

namespace switchyard::nccl {

void OwnedPermutation::resize(const Permuter& permuter, int64_t num_tokens) {
  const PermutationConfig& config = permuter.config();
  const PermutationSizes sizes = permuter.sizes(num_tokens);
  const int32_t num_local = config.num_local();
  if (num_tokens > capacity_) {
    grow(tokens_per_expert_, num_local, backend_);
    grow(expert_offsets_, num_local + 1, backend_);
    grow(row_to_assignment_, sizes.num_rows, backend_);
    grow(assignment_to_row_, num_tokens * config.top_k, backend_);
    grow(block_experts_, sizes.num_blocks, backend_);
    capacity_ = num_tokens;
  }
  view_ = {.tokens_per_expert = {tokens_per_expert_.data(), num_local},
           .expert_offsets = {expert_offsets_.data(), num_local + 1},
           .row_to_assignment = {row_to_assignment_.data(), sizes.num_rows},
           .assignment_to_row = {assignment_to_row_.data(), num_tokens, config.top_k},
           .block_experts = {block_experts_.data(), sizes.num_blocks},
           .totals = totals_.data()};
  host_view_ = view_;
  host_view_.tokens_per_expert.data = tokens_per_expert_.host();
  host_view_.expert_offsets.data = expert_offsets_.host();
  host_view_.assignment_to_row.data = assignment_to_row_.host();
  host_view_.totals = totals_.host();
}

void OwnedPermutation::keep_as_one_expert(int64_t num_rows) const {
  host_view_.tokens_per_expert[0] = num_rows;
  host_view_.expert_offsets[0] = 0;
  host_view_.expert_offsets[1] = num_rows;
  *host_view_.totals = {.num_rows = num_rows, .kept_assignments = num_rows};
}

void OwnedPermutation::download_counts(StreamView stream) const {
  tokens_per_expert_.download(view_.tokens_per_expert.size, stream);
  totals_.download(1, stream);
}

void OwnedPermutation::download_rows(StreamView stream) const {
  assignment_to_row_.download(view_.assignment_to_row.rows * view_.assignment_to_row.cols, stream);
}

void OwnedPermutation::upload(StreamView stream) const {
  tokens_per_expert_.upload(view_.tokens_per_expert.size, stream);
  expert_offsets_.upload(view_.expert_offsets.size, stream);
  assignment_to_row_.upload(view_.assignment_to_row.rows * view_.assignment_to_row.cols, stream);
  totals_.upload(1, stream);
}

}  // namespace switchyard::nccl

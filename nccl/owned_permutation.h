// A permutation with memory of its own.
#pragma once

#include <cstdint>

#include "switchyard/buffer.h"
#include "switchyard/permutation.h"

namespace switchyard::nccl {

/// In memory that the host and the permuter's backend share.
class OwnedPermutation {
 public:
  explicit OwnedPermutation(Backend backend) : backend_(backend), totals_(1, backend) {}

  /// Takes the shape of a batch for `permuter`. Allocates where no batch was as large before.
  void resize(const Permuter& permuter, int64_t num_tokens);
  /// Says that the rows, whose order the caller fills in, are `num_rows` of one expert.
  void keep_as_one_expert(int64_t num_rows);
  [[nodiscard]] const Permutation& view() const { return view_; }
  [[nodiscard]] const PermutationTotals& totals() const { return totals_[0]; }

 private:
  Backend backend_;
  int64_t capacity_ = -1;  ///< tokens that there is memory for
  Buffer<int64_t> tokens_per_expert_;
  Buffer<int64_t> expert_offsets_;
  Buffer<int64_t> row_to_assignment_;
  Buffer<int64_t> assignment_to_row_;
  Buffer<int32_t> block_experts_;
  Buffer<PermutationTotals> totals_;
  Permutation view_;
};

/// Makes `buffer` hold at least `size` elements; what it held is lost where it grows.
template <typename T>
void grow(Buffer<T>& buffer, int64_t size, Backend backend) {
  if (buffer.size() < size) buffer = Buffer<T>(size, backend);
}

}  // namespace switchyard::nccl

// A permutation with memory of its own.
#pragma once

#include <cstdint>

#include "nccl/plan_arrays.h"
#include "switchyard/permutation.h"

namespace switchyard::nccl {

/// In the memory of the permuter's backend, and on the host what its code deals with: on host
/// backends that is the same memory.
class OwnedPermutation {
 public:
  explicit OwnedPermutation(Backend backend) : backend_(backend), totals_(1, backend) {}

  /// Takes the shape of a batch for `permuter`. Allocates where no batch was as large before.
  void resize(const Permuter& permuter, int64_t num_tokens);
  /// Says on the host that the rows, whose order the caller fills in there, are `num_rows` of one
  /// expert.
  void keep_as_one_expert(int64_t num_rows) const;
  /// The backend's.
  [[nodiscard]] const Permutation& view() const { return view_; }
  /// row_to_assignment and block_experts are the backend's all the same.
  [[nodiscard]] const Permutation& on_host() const { return host_view_; }
  /// Valid once counts have been downloaded.
  [[nodiscard]] const PermutationTotals& totals() const { return *totals_.host(); }

  /// Copies to the host what a sort has counted, and where it puts assignments.
  void download_counts(StreamView stream) const;
  void download_rows(StreamView stream) const;
  /// Copies what the host has filled in to the backend.
  void upload(StreamView stream) const;

 private:
  Backend backend_;
  int64_t capacity_ = -1;  ///< tokens that there is memory for
  MirroredArray<int64_t> tokens_per_expert_;
  MirroredArray<int64_t> expert_offsets_;
  BackendArray<int64_t> row_to_assignment_;
  MirroredArray<int64_t> assignment_to_row_;
  BackendArray<int32_t> block_experts_;
  MirroredArray<PermutationTotals> totals_;
  Permutation view_;
  Permutation host_view_;
};

}  // namespace switchyard::nccl

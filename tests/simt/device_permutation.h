// A batch and its permutation in device memory, for tests that enqueue calls themselves.
#pragma once

#include <memory>
#include <vector>

#include "cuda/permutation.h"
#include "tests/permutation_case.h"
#include "tests/simt/device_array.h"

namespace switchyard::test {

class DevicePermutation {
 public:
  explicit DevicePermutation(const PermutationCase& batch)
      : permuter(cuda::make_cuda_permuter(batch.config)),
        sizes(Permuter(batch.config, Backend::kReference).sizes(batch.num_tokens)),
        ids(batch.ids),
        weights(batch.weights),
        workspace(static_cast<size_t>(permuter->workspace_bytes(batch.num_tokens))),
        num_tokens_(batch.num_tokens),
        stride_(batch.stride()),
        tokens_per_expert_(static_cast<size_t>(batch.config.num_local())),
        expert_offsets_(static_cast<size_t>(batch.config.num_local() + 1)),
        row_to_assignment_(static_cast<size_t>(sizes.num_rows)),
        assignment_to_row_(static_cast<size_t>(batch.num_tokens * batch.config.top_k)),
        block_experts_(static_cast<size_t>(sizes.num_blocks)),
        totals_(1) {}

  [[nodiscard]] MatrixView<const int32_t> expert_ids() const {
    return {ids.data(), num_tokens_, permuter->config.top_k, stride_};
  }
  [[nodiscard]] ConstTensorView gate_weights() const {
    return MatrixView<const float>(weights.data(), num_tokens_, permuter->config.top_k, stride_);
  }
  [[nodiscard]] Permutation view() const {
    return {{tokens_per_expert_.data(), permuter->config.num_local()},
            {expert_offsets_.data(), permuter->config.num_local() + 1},
            {row_to_assignment_.data(), sizes.num_rows},
            {assignment_to_row_.data(), num_tokens_, permuter->config.top_k},
            {block_experts_.data(), sizes.num_blocks},
            totals_.data()};
  }
  [[nodiscard]] std::span<std::byte> workspace_span() const {
    return {workspace.data(), workspace.size()};
  }
  void sort(StreamView stream = {}) const {
    permuter->sort(expert_ids(), gate_weights(), view(), workspace_span(), stream);
  }
  /// Waits for all work.
  [[nodiscard]] SortedBatch download() const {
    return {tokens_per_expert_.download(), expert_offsets_.download(),
            row_to_assignment_.download(), assignment_to_row_.download(),
            block_experts_.download(),     totals_.download().front()};
  }

  const std::unique_ptr<Permuter::Implementation> permuter;
  const PermutationSizes sizes;
  DeviceArray<int32_t> ids;
  DeviceArray<float> weights;
  DeviceArray<std::byte> workspace;

 private:
  int64_t num_tokens_;
  int64_t stride_;
  DeviceArray<int64_t> tokens_per_expert_;
  DeviceArray<int64_t> expert_offsets_;
  DeviceArray<int64_t> row_to_assignment_;
  DeviceArray<int64_t> assignment_to_row_;
  DeviceArray<int32_t> block_experts_;
  DeviceArray<PermutationTotals> totals_;
};

}  // namespace switchyard::test

#include "cuda/permutation.h"

#include "cuda/assignment_sort.h"
#include "cuda/device_state.h"
#include "cuda/permute.h"
#include "cuda/unpermute.h"
#include "cuda/workspace_parts.h"

namespace switchyard::cuda {
namespace {

class CudaPermuter final : public Permuter::Implementation {
 public:
  explicit CudaPermuter(const PermutationConfig& permutation_config)
      : Implementation(permutation_config, Backend::kCuda) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    return assignment_sort_workspace(config, max_tokens);
  }

  void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
            const Permutation& out, std::span<std::byte> workspace,
            StreamView stream) const override {
    device_.check_usable(stream);
    check_matrix("expert_ids", expert_ids, alignof(int32_t));
    check_tensor("gate_weights", gate_weights);
    check_permutation(out);
    device_.check_memory("workspace", workspace.empty() ? nullptr : workspace.data(),
                         WorkspaceParts::kAlignment);
    sort_assignments(config, device_, expert_ids, gate_weights, out, workspace.data(), stream);
  }

  void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
               MatrixView<std::byte> sorted, StreamView stream) const override {
    device_.check_usable(stream);
    check_permutation(permutation);
    check_matrix("tokens", tokens, 1);
    check_matrix("sorted", sorted, 1);
    permute_rows(device_, permutation, config.block_rows, tokens, sorted, stream);
  }

  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens,
                 StreamView stream) const override {
    device_.check_usable(stream);
    check_permutation(permutation);
    check_tensor("sorted", sorted);
    check_tensor("gate_weights", gate_weights);
    check_tensor("tokens", tokens);
    unpermute_rows(device_, permutation.assignment_to_row, sorted, gate_weights, tokens, stream);
  }

 private:
  // Memory is looked at only where it has elements, as in the front door.

  template <typename T>
  void check_vector(const char* name, VectorView<T> view) const {
    device_.check_memory(name, view.empty() ? nullptr : view.data, alignof(T));
  }

  template <typename View>
  void check_matrix(const char* name, const View& view, std::size_t alignment) const {
    device_.check_memory(name, view.rows == 0 || view.cols == 0 ? nullptr : view.data, alignment);
  }

  void check_tensor(const char* name, const ConstTensorView& view) const {
    check_matrix(name, view, static_cast<std::size_t>(size_of(view.dtype)));
  }

  void check_permutation(const Permutation& permutation) const {
    check_vector("tokens_per_expert", permutation.tokens_per_expert);
    check_vector("expert_offsets", permutation.expert_offsets);
    check_vector("row_to_assignment", permutation.row_to_assignment);
    check_matrix("assignment_to_row", permutation.assignment_to_row, alignof(int64_t));
    check_vector("block_experts", permutation.block_experts);
    device_.check_memory("totals", permutation.totals, alignof(PermutationTotals));
  }

  const DeviceState device_;
};

}  // namespace

std::unique_ptr<Permuter::Implementation> make_cuda_permuter(const PermutationConfig& config) {
  return std::make_unique<CudaPermuter>(config);
}

}  // namespace switchyard::cuda

#include "cuda/permutation.h"

#include "cuda/assignment_sort.cuh"
#include "cuda/assignment_sort.h"
#include "cuda/device_state.h"
#include "cuda/permutation_checks.h"
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
    check_matrix(device_, "expert_ids", expert_ids, alignof(int32_t));
    check_tensor(device_, "gate_weights", gate_weights);
    check_permutation(device_, out);
    device_.check_memory("workspace", workspace.empty() ? nullptr : workspace.data(),
                         WorkspaceParts::kAlignment);
    sort_assignments(config, device_, sort_args(config, expert_ids, gate_weights, out),
                     workspace.data(), stream);
  }

  void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
               MatrixView<std::byte> sorted, StreamView stream) const override {
    device_.check_usable(stream);
    check_permutation(device_, permutation);
    check_matrix(device_, "tokens", tokens, 1);
    check_matrix(device_, "sorted", sorted, 1);
    permute_rows(device_, permutation, config.block_rows, tokens, sorted, stream);
  }

  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens,
                 StreamView stream) const override {
    device_.check_usable(stream);
    check_permutation(device_, permutation);
    check_tensor(device_, "sorted", sorted);
    check_tensor(device_, "gate_weights", gate_weights);
    check_tensor(device_, "tokens", tokens);
    unpermute_rows(device_, permutation.assignment_to_row, sorted, gate_weights, tokens, stream);
  }

  void permute_to(MatrixView<const std::byte> tokens, MatrixView<std::byte* const> rows,
                  StreamView stream) const override {
    device_.check_usable(stream);
    check_matrix(device_, "tokens", tokens, 1);
    check_matrix(device_, "rows", rows, alignof(std::byte*));
    permute_rows_to(device_, tokens, rows, stream);
  }

  void unpermute_from(MatrixView<const std::byte* const> rows, DataType dtype,
                      ConstTensorView gate_weights, TensorView tokens,
                      StreamView stream) const override {
    device_.check_usable(stream);
    check_matrix(device_, "rows", rows, alignof(std::byte*));
    check_tensor(device_, "gate_weights", gate_weights);
    check_tensor(device_, "tokens", tokens);
    unpermute_rows_from(device_, rows, dtype, gate_weights, tokens, stream);
  }

 private:
  const DeviceState device_;
};

}  // namespace

std::unique_ptr<Permuter::Implementation> make_cuda_permuter(const PermutationConfig& config) {
  return std::make_unique<CudaPermuter>(config);
}

}  // namespace switchyard::cuda

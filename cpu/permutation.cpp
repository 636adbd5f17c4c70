#include "cpu/permutation.h"

#include "cpu/assignment_sort.h"
#include "cpu/permute.h"
#include "cpu/threads.h"
#include "cpu/unpermute.h"

namespace switchyard::cpu {
namespace {

class CpuPermuter final : public Permuter::Implementation {
 public:
  CpuPermuter(const PermutationConfig& permutation_config, const CpuThreads& threads)
      : Implementation(permutation_config, Backend::kCpu), team_(threads) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    return assignment_sort_workspace(config, team_, max_tokens);
  }

  void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
            const Permutation& out, std::span<std::byte> workspace, StreamView) const override {
    sort_assignments(config, team_, expert_ids, gate_weights, out, workspace);
  }

  void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
               MatrixView<std::byte> sorted, StreamView) const override {
    permute_rows(team_, {permutation, tokens, sorted});
  }

  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens, StreamView) const override {
    const int64_t element_bytes = size_of(sorted.dtype);
    const MatrixView<const std::byte> rows(static_cast<const std::byte*>(sorted.data), sorted.rows,
                                           sorted.cols * element_bytes,
                                           sorted.row_stride * element_bytes);
    unpermute_rows(team_,
                   {{permutation.assignment_to_row, rows}, sorted.dtype, gate_weights, tokens});
  }

  void permute_to(MatrixView<const std::byte> tokens, MatrixView<std::byte* const> rows,
                  StreamView) const override {
    permute_rows_to(team_, tokens, {rows});
  }

  void unpermute_from(MatrixView<const std::byte* const> rows, DataType dtype,
                      ConstTensorView gate_weights, TensorView tokens, StreamView) const override {
    unpermute_rows_from(team_, {{rows}, dtype, gate_weights, tokens});
  }

 private:
  const ThreadTeam team_;
};

}  // namespace

std::unique_ptr<Permuter::Implementation> make_cpu_permuter(const PermutationConfig& config,
                                                            const CpuThreads& threads) {
  return std::make_unique<CpuPermuter>(config, threads);
}

}  // namespace switchyard::cpu

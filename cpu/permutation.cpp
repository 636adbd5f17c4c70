#include "cpu/permutation.h"

#include <algorithm>
#include <cstring>

#include "cpu/assignment_sort.h"
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
    // Below this many bytes written, a second thread costs more than it saves.
    constexpr int64_t kMinBytesPerTask = 1 << 18;
    if (tokens.cols == 0) return;
    const int64_t token_bytes = tokens.cols * config.top_k;
    const int num_tasks =
        team_.num_tasks(tokens.rows, std::max<int64_t>(1, kMinBytesPerTask / token_bytes));
    team_.run(tokens.rows, num_tasks, 1, [&](int64_t begin, int64_t end, int task) {
      copy_tokens(permutation, tokens, sorted, begin, end);
      const int64_t num_experts = config.num_local();
      clear_padding(permutation, sorted, ThreadTeam::first_item(num_experts, task, num_tasks, 1),
                    ThreadTeam::first_item(num_experts, task + 1, num_tasks, 1));
    });
  }

  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens, StreamView) const override {
    unpermute_rows(team_, {permutation.assignment_to_row, sorted, gate_weights, tokens});
  }

 private:
  /// Token by token, so that each row is read from memory once and not once for every slot.
  void copy_tokens(const Permutation& permutation, MatrixView<const std::byte> tokens,
                   MatrixView<std::byte> sorted, int64_t begin, int64_t end) const {
    const auto row_bytes = static_cast<size_t>(tokens.cols);
    for (int64_t token = begin; token < end; ++token) {
      const int64_t* rows = permutation.assignment_to_row.row(token);
      for (int32_t slot = 0; slot < config.top_k; ++slot) {
        if (rows[slot] >= 0) std::memcpy(sorted.row(rows[slot]), tokens.row(token), row_bytes);
      }
    }
  }

  static void clear_padding(const Permutation& permutation, MatrixView<std::byte> sorted,
                            int64_t begin, int64_t end) {
    for (int64_t expert = begin; expert < end; ++expert) {
      const int64_t first =
          permutation.expert_offsets[expert] + permutation.tokens_per_expert[expert];
      for (int64_t row = first; row < permutation.expert_offsets[expert + 1]; ++row) {
        std::memset(sorted.row(row), 0, static_cast<size_t>(sorted.cols));
      }
    }
  }

  const ThreadTeam team_;
};

}  // namespace

std::unique_ptr<Permuter::Implementation> make_cpu_permuter(const PermutationConfig& config,
                                                            const CpuThreads& threads) {
  return std::make_unique<CpuPermuter>(config, threads);
}

}  // namespace switchyard::cpu

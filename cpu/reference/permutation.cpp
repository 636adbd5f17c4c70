#include "cpu/reference/permutation.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "cpu/expert_ids.h"

namespace switchyard::cpu::reference {
namespace {

/// Every NaN is written as the positive quiet one without payload.
void write_element(const TensorView& tensor, int64_t row, int64_t column, float value) {
  set_element(tensor, row, column, std::isnan(value) ? std::bit_cast<float>(0x7fc00000u) : value);
}

/// Whether a full expert keeps an assignment of the first weight rather than one of the second.
bool outweighs(float first, float second) {
  if (std::isnan(first)) return false;
  return std::isnan(second) || first > second;
}

class ReferencePermuter final : public Permuter::Implementation {
 public:
  explicit ReferencePermuter(const PermutationConfig& permutation_config)
      : Implementation(permutation_config, Backend::kReference) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
            const Permutation& out, std::span<std::byte>, StreamView) const override {
    check_expert_ids(expert_ids, config.num_experts);
    std::fill_n(out.row_to_assignment.data, out.row_to_assignment.size, -1);
    std::fill_n(out.block_experts.data, out.block_experts.size, -1);
    for (int64_t token = 0; token < expert_ids.rows; ++token) {
      std::fill_n(out.assignment_to_row.row(token), config.top_k, -1);
    }
    const int64_t capacity =
        capacity_rows(config.capacity, expert_ids.rows, config.top_k, config.num_experts);
    std::vector<std::vector<int64_t>> by_expert = assignments_by_expert(expert_ids);
    PermutationTotals totals;
    for (int32_t local = 0; local < config.num_local(); ++local) {
      std::vector<int64_t>& chosen = by_expert[static_cast<size_t>(local)];
      const auto assigned = static_cast<int64_t>(chosen.size());
      if (assigned > capacity) drop(chosen, gate_weights, capacity);
      const auto kept = static_cast<int64_t>(chosen.size());
      totals.kept_assignments += kept;
      totals.dropped_assignments += assigned - kept;
      out.tokens_per_expert[local] = kept;
      out.expert_offsets[local] = totals.num_rows;
      for (int64_t i = 0; i < kept; ++i) {
        const int64_t assignment = chosen[static_cast<size_t>(i)];
        const int64_t row = totals.num_rows + i;
        out.row_to_assignment[row] = assignment;
        out.assignment_to_row.row(assignment / config.top_k)[assignment % config.top_k] = row;
      }
      for (int64_t first = 0; first < kept; first += config.block_rows) {
        out.block_experts[totals.num_rows / config.block_rows] = local;
        totals.num_rows += config.block_rows;
      }
    }
    out.expert_offsets[config.num_local()] = totals.num_rows;
    totals.fully_dropped_tokens = count_fully_dropped(expert_ids, out);
    *out.totals = totals;
  }

  void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
               MatrixView<std::byte> sorted, StreamView) const override {
    for (int64_t row = 0; row < permutation.totals->num_rows; ++row) {
      const int64_t assignment = permutation.row_to_assignment[row];
      for (int64_t i = 0; i < sorted.cols; ++i) {
        sorted.row(row)[i] =
            assignment < 0 ? std::byte{0} : tokens.row(assignment / config.top_k)[i];
      }
    }
  }

  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens, StreamView) const override {
    const int64_t row_bytes = sorted.row_stride * size_of(sorted.dtype);
    combine(gate_weights, tokens, [&](int64_t token, int32_t slot) -> ConstTensorView {
      const int64_t row = permutation.assignment_to_row.row(token)[slot];
      if (row < 0) return {};
      return row_of(static_cast<const std::byte*>(sorted.data) + row * row_bytes, sorted.dtype,
                    sorted.cols);
    });
  }

  void permute_to(MatrixView<const std::byte> tokens, MatrixView<std::byte* const> rows,
                  StreamView) const override {
    for (int64_t token = 0; token < tokens.rows; ++token) {
      for (int32_t slot = 0; slot < config.top_k; ++slot) {
        std::byte* row = rows.row(token)[slot];
        if (row != nullptr) std::copy_n(tokens.row(token), tokens.cols, row);
      }
    }
  }

  void unpermute_from(MatrixView<const std::byte* const> rows, DataType dtype,
                      ConstTensorView gate_weights, TensorView tokens, StreamView) const override {
    combine(gate_weights, tokens, [&](int64_t token, int32_t slot) {
      return row_of(rows.row(token)[slot], dtype, tokens.cols);
    });
  }

 private:
  static ConstTensorView row_of(const std::byte* data, DataType dtype, int64_t size) {
    return {data, dtype, 1, size, size};
  }

  /// `row_at(token, slot)` is a matrix of one row; without data, where the assignment has none.
  template <typename RowAt>
  void combine(const ConstTensorView& gate_weights, const TensorView& tokens,
               const RowAt& row_at) const {
    for (int64_t token = 0; token < tokens.rows; ++token) {
      for (int64_t column = 0; column < tokens.cols; ++column) {
        float sum = 0.0f;
        for (int32_t slot = 0; slot < config.top_k; ++slot) {
          const ConstTensorView row = row_at(token, slot);
          if (row.data == nullptr) continue;
          const float weight =
              gate_weights.data == nullptr ? 1.0f : element_at(gate_weights, token, slot);
          sum = std::fma(weight, element_at(row, 0, column), sum);
        }
        write_element(tokens, token, column, sum);
      }
    }
  }

  [[nodiscard]] bool is_local(int32_t id) const {
    return id >= config.first_local_expert && id < config.first_local_expert + config.num_local();
  }

  /// Each local expert's assignments in (token, slot) order.
  [[nodiscard]] std::vector<std::vector<int64_t>> assignments_by_expert(
      MatrixView<const int32_t> expert_ids) const {
    std::vector<std::vector<int64_t>> assignments(static_cast<size_t>(config.num_local()));
    for (int64_t token = 0; token < expert_ids.rows; ++token) {
      for (int32_t slot = 0; slot < config.top_k; ++slot) {
        const int32_t id = expert_ids.row(token)[slot];
        if (!is_local(id)) continue;
        assignments[static_cast<size_t>(id - config.first_local_expert)].push_back(
            token * config.top_k + slot);
      }
    }
    return assignments;
  }

  /// Leaves the `capacity` assignments that the policy keeps, still in (token, slot) order.
  void drop(std::vector<int64_t>& assignments, const ConstTensorView& gate_weights,
            int64_t capacity) const {
    if (config.capacity.drop_policy == DropPolicy::kWeight) {
      const auto weight = [&](int64_t assignment) {
        return element_at(gate_weights, assignment / config.top_k, assignment % config.top_k);
      };
      std::stable_sort(assignments.begin(), assignments.end(),
                       [&](int64_t a, int64_t b) { return outweighs(weight(a), weight(b)); });
    }
    assignments.resize(static_cast<size_t>(capacity));
    std::sort(assignments.begin(), assignments.end());
  }

  [[nodiscard]] int64_t count_fully_dropped(MatrixView<const int32_t> expert_ids,
                                            const Permutation& out) const {
    int64_t count = 0;
    for (int64_t token = 0; token < expert_ids.rows; ++token) {
      bool any_local = false;
      bool any_kept = false;
      for (int32_t slot = 0; slot < config.top_k; ++slot) {
        any_local |= is_local(expert_ids.row(token)[slot]);
        any_kept |= out.assignment_to_row.row(token)[slot] >= 0;
      }
      if (any_local && !any_kept) ++count;
    }
    return count;
  }
};

}  // namespace

std::unique_ptr<Permuter::Implementation> make_permuter(const PermutationConfig& config) {
  return std::make_unique<ReferencePermuter>(config);
}

}  // namespace switchyard::cpu::reference

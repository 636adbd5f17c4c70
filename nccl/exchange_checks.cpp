#include "nccl/exchange_checks.h"

#include "nccl/refuse.h"

namespace switchyard::nccl {
namespace {

template <typename View>
void check_rows(const char* name, const View& view, int64_t min_rows, int64_t max_rows) {
  if (view.rows < min_rows || view.rows > max_rows) {
    refuse(name, " has ", view.rows, " rows, must have ", min_rows,
           max_rows == min_rows ? "" : " or more");
  }
  if (view.cols < 0 || view.row_stride < view.cols) {
    refuse(name, " has ", view.cols, " columns at row_stride ", view.row_stride,
           ", must have 0 or more within the stride");
  }
  if (view.data == nullptr && view.rows > 0 && view.cols > 0) refuse(name, " is a null pointer");
}

constexpr int64_t kAnyRows = INT64_MAX;

}  // namespace

void check_dispatch_rows(const char* tokens, const char* expert_rows, const DispatchRows& rows,
                         const AllToAllPlan::State& state) {
  check_rows(tokens, rows.tokens, state.num_tokens, state.num_tokens);
  check_rows(expert_rows, rows.expert_rows, state.layout.expert_offsets.back(), kAnyRows);
  if (rows.expert_rows.cols != rows.tokens.cols) {
    refuse(expert_rows, " has ", rows.expert_rows.cols, " bytes a row, must have ",
           rows.tokens.cols);
  }
}

void check_combine_rows(const CombineRows& rows, const AllToAllPlan::State& state, int32_t top_k) {
  check_rows("expert_rows", rows.expert_rows, state.layout.expert_offsets.back(), kAnyRows);
  check_rows("tokens", rows.tokens, state.num_tokens, state.num_tokens);
  if (rows.tokens.cols != rows.expert_rows.cols) {
    refuse("tokens has ", rows.tokens.cols, " columns, must have ", rows.expert_rows.cols);
  }
  if (rows.gate_weights.data == nullptr && rows.gate_weights.rows == 0) return;
  check_rows("gate_weights", rows.gate_weights, state.num_tokens, state.num_tokens);
  if (rows.gate_weights.cols != top_k) {
    refuse("gate_weights has ", rows.gate_weights.cols, " columns, must have ", top_k);
  }
  if (rows.gate_weights.dtype == DataType::kFloat16) {
    refuse("gate_weights are F16, must be F32 or BF16");
  }
}

void check_workspace(std::span<std::byte> workspace, int64_t needed) {
  if (static_cast<int64_t>(workspace.size()) < needed) {
    refuse("workspace holds ", workspace.size(), " bytes, must hold ", needed);
  }
  const auto address = reinterpret_cast<uintptr_t>(workspace.data());
  if (needed > 0 && address % WorkspaceParts::kAlignment != 0) {
    refuse("workspace is not aligned to ", WorkspaceParts::kAlignment, " bytes");
  }
}

}  // namespace switchyard::nccl

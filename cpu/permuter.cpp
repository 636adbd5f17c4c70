// The front door of permutation: checks the config once and every call's shapes, then hands over.
#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/backend_registry.h"
#include "cpu/call_checks.h"
#include "cpu/refuse.h"
#include "cpu/view_checks.h"
#include "switchyard/permutation.h"
#include "switchyard/permuter_backend.h"

namespace switchyard {

using cpu::check_matrix;
using cpu::check_range;
using cpu::check_vector;
using cpu::kMaxTokens;
using cpu::refuse;

namespace {

void check_capacity(const ExpertCapacity& capacity) {
  check_range("capacity.mode", static_cast<int64_t>(capacity.mode), 0,
              static_cast<int64_t>(ExpertCapacity::Mode::kFactor));
  check_range("capacity.drop_policy", static_cast<int64_t>(capacity.drop_policy), 0,
              static_cast<int64_t>(DropPolicy::kWeight));
  if (capacity.mode == ExpertCapacity::Mode::kFixed && capacity.rows < 0) {
    refuse("capacity.rows is ", capacity.rows, ", must be 0 or more");
  }
  if (capacity.mode == ExpertCapacity::Mode::kFactor &&
      (!std::isfinite(capacity.factor) || capacity.factor <= 0.0)) {
    refuse("capacity.factor is ", capacity.factor, ", must be finite and above 0");
  }
}

int64_t round_up(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

PermutationSizes sizes_of(const PermutationConfig& config, int64_t num_tokens) {
  const int64_t assignments = num_tokens * config.top_k;
  const int64_t experts = config.num_local();
  const int64_t capacity = std::min(
      assignments, capacity_rows(config.capacity, num_tokens, config.top_k, config.num_experts));
  // An expert in use adds at most block_rows - 1 rows of padding, and there are never more experts
  // in use than assignments. Whole blocks are handed out, so what is left of the last one is not.
  const int64_t in_use = capacity == 0 ? 0 : std::min(assignments, experts);
  const int64_t spread = assignments + in_use * (config.block_rows - 1);
  const int64_t full = experts * round_up(capacity, config.block_rows);
  PermutationSizes sizes;
  sizes.num_blocks = std::min(spread, full) / config.block_rows;
  sizes.num_rows = sizes.num_blocks * config.block_rows;
  return sizes;
}

/// An empty view stands for weights that are not given.
void check_gate_weights(const ConstTensorView& weights, int64_t num_tokens, int32_t top_k) {
  if (weights.data == nullptr && weights.rows == 0 && weights.cols == 0) return;
  if (weights.dtype != DataType::kFloat32 && weights.dtype != DataType::kBFloat16) {
    refuse("gate_weights are ", name_of(weights.dtype), ", must be F32 or BF16");
  }
  check_matrix("gate_weights", weights, num_tokens, top_k);
}

void check_permutation(const PermutationConfig& config, const Permutation& permutation,
                       int64_t num_tokens) {
  const PermutationSizes sizes = sizes_of(config, num_tokens);
  check_vector("tokens_per_expert", permutation.tokens_per_expert, config.num_local());
  check_vector("expert_offsets", permutation.expert_offsets, config.num_local() + 1);
  check_vector("row_to_assignment", permutation.row_to_assignment, sizes.num_rows);
  check_matrix("assignment_to_row", permutation.assignment_to_row, num_tokens, config.top_k);
  check_vector("block_experts", permutation.block_experts, sizes.num_blocks);
  if (permutation.totals == nullptr) refuse("totals is a null pointer");
}

void check_dtype(const char* name, DataType dtype) {
  if (dtype > DataType::kBFloat16) {
    refuse(name, " have an unknown element type, ", static_cast<int>(dtype));
  }
}

/// Tokens of any size.
template <typename View>
void check_tokens(const View& tokens) {
  check_range("tokens rows", tokens.rows, 0, kMaxTokens);
  if (tokens.cols < 0) refuse("tokens has ", tokens.cols, " columns, must have 0 or more");
  check_matrix("tokens", tokens, tokens.rows, tokens.cols);
}

}  // namespace

int64_t capacity_rows(const ExpertCapacity& capacity, int64_t num_tokens, int32_t top_k,
                      int32_t num_experts) {
  check_capacity(capacity);
  check_range("num_tokens", num_tokens, 0, kMaxTokens);
  check_range("top_k", top_k, 1, kMaxPermutationSlots);
  check_range("num_experts", num_experts, 1, kMaxPermutationExperts);
  if (capacity.mode == ExpertCapacity::Mode::kFixed) return capacity.rows;
  constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();
  if (capacity.mode == ExpertCapacity::Mode::kUnlimited) return kUnlimited;
  if (num_tokens == 0) return 0;
  const double share = capacity.factor * static_cast<double>(num_tokens * top_k) / num_experts;
  if (share >= 0x1p63) return kUnlimited;
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(share)));
}

void validate(const PermutationConfig& config) {
  check_range("num_experts", config.num_experts, 1, kMaxPermutationExperts);
  check_range("top_k", config.top_k, 1, kMaxPermutationSlots);
  check_range("block_rows", config.block_rows, 1, kMaxBlockRows);
  check_capacity(config.capacity);
  check_range("first_local_expert", config.first_local_expert, 0, config.num_experts);
  check_range("num_local_experts", config.num_local_experts, -1,
              config.num_experts - config.first_local_expert);
}

void cpu::check_sort_call(const PermutationConfig& config, MatrixView<const int32_t> expert_ids,
                          const ConstTensorView& gate_weights, const Permutation& out) {
  const int64_t num_tokens = expert_ids.rows;
  check_range("expert_ids rows", num_tokens, 0, kMaxTokens);
  check_matrix("expert_ids", expert_ids, num_tokens, config.top_k);
  check_gate_weights(gate_weights, num_tokens, config.top_k);
  const ExpertCapacity& capacity = config.capacity;
  if (capacity.mode != ExpertCapacity::Mode::kUnlimited &&
      capacity.drop_policy == DropPolicy::kWeight && gate_weights.rows != num_tokens) {
    refuse("gate_weights has 0 rows, must have ", num_tokens, " to drop by weight");
  }
  check_permutation(config, out, num_tokens);
}

Permuter::Permuter(const PermutationConfig& config, Backend backend, CpuThreads threads) {
  validate(config);
  implementation_ = cpu::make_permuter(config, backend, threads);
}

Permuter::~Permuter() = default;
Permuter::Permuter(Permuter&&) noexcept = default;
Permuter& Permuter::operator=(Permuter&&) noexcept = default;

const PermutationConfig& Permuter::config() const { return implementation_->config; }

Backend Permuter::backend() const { return implementation_->backend; }

PermutationSizes Permuter::sizes(int64_t num_tokens) const {
  check_range("num_tokens", num_tokens, 0, kMaxTokens);
  return sizes_of(config(), num_tokens);
}

int64_t Permuter::workspace_bytes(int64_t max_tokens) const {
  check_range("max_tokens", max_tokens, 0, kMaxTokens);
  return implementation_->workspace_bytes(max_tokens);
}

void Permuter::sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
                    const Permutation& out, std::span<std::byte> workspace,
                    StreamView stream) const {
  cpu::check_sort_call(config(), expert_ids, gate_weights, out);
  cpu::check_workspace(workspace, implementation_->workspace_bytes(expert_ids.rows));
  implementation_->sort(expert_ids, gate_weights, out, workspace, stream);
}

void Permuter::permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
                       MatrixView<std::byte> sorted, StreamView stream) const {
  check_tokens(tokens);
  check_permutation(config(), permutation, tokens.rows);
  check_matrix("sorted", sorted, permutation.row_to_assignment.size, tokens.cols);
  implementation_->permute(permutation, tokens, sorted, stream);
}

void Permuter::unpermute(const Permutation& permutation, ConstTensorView sorted,
                         ConstTensorView gate_weights, TensorView tokens, StreamView stream) const {
  check_dtype("sorted", sorted.dtype);
  check_dtype("tokens", tokens.dtype);
  check_tokens(tokens);
  check_permutation(config(), permutation, tokens.rows);
  check_matrix("sorted", sorted, permutation.row_to_assignment.size, tokens.cols);
  check_gate_weights(gate_weights, tokens.rows, config().top_k);
  implementation_->unpermute(permutation, sorted, gate_weights, tokens, stream);
}

void Permuter::permute_to(MatrixView<const std::byte> tokens, MatrixView<std::byte* const> rows,
                          StreamView stream) const {
  check_tokens(tokens);
  check_matrix("rows", rows, tokens.rows, config().top_k);
  implementation_->permute_to(tokens, rows, stream);
}

void Permuter::unpermute_from(MatrixView<const std::byte* const> rows, DataType dtype,
                              ConstTensorView gate_weights, TensorView tokens,
                              StreamView stream) const {
  check_dtype("rows", dtype);
  check_dtype("tokens", tokens.dtype);
  check_tokens(tokens);
  check_matrix("rows", rows, tokens.rows, config().top_k);
  check_gate_weights(gate_weights, tokens.rows, config().top_k);
  implementation_->unpermute_from(rows, dtype, gate_weights, tokens, stream);
}

}  // namespace switchyard

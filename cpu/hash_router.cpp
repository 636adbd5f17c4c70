// The front door of hash routing: makes tables, checks the config once and every call's shapes,
// then hands over.
#include <algorithm>
#include <array>

#include "cpu/backend_registry.h"
#include "cpu/call_checks.h"
#include "cpu/refuse.h"
#include "cpu/view_checks.h"
#include "switchyard/hash_routing.h"
#include "switchyard/hash_routing_backend.h"

namespace switchyard {

using cpu::check_matrix;
using cpu::check_optional_vector;
using cpu::check_vector;
using cpu::refuse;

namespace {

/// SplitMix64's output function: every bit of the input reaches every bit of the output.
uint64_t mixed(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

/// Slot after slot draws one of the experts that are left.
void fill_hash_row(int32_t num_experts, uint64_t row_hash, int32_t top_k, int32_t* row) {
  std::array<int32_t, kMaxTopK> taken{};  // ascending
  for (int32_t slot = 0; slot < top_k; ++slot) {
    const uint64_t hash = mixed(row_hash + static_cast<uint64_t>(slot));
    // The upper half scaled; its bias is below 2^-20.
    auto expert =
        static_cast<int32_t>((hash >> 32) * static_cast<uint64_t>(num_experts - slot) >> 32);
    int32_t place = 0;
    for (; place < slot && taken[static_cast<size_t>(place)] <= expert; ++place) ++expert;
    const auto position = taken.begin() + place;
    std::copy_backward(position, taken.begin() + slot, taken.begin() + slot + 1);
    *position = expert;
    row[slot] = expert;
  }
}

void check_call(const RouterConfig& config, const HashRoutingInputs& inputs,
                const RoutingResult& result) {
  const VectorView<const int32_t>& token_ids = inputs.token_ids;
  if (token_ids.size < 0) {
    refuse("token_ids has ", token_ids.size, " elements, must have 0 or more");
  }
  const int64_t num_tokens = token_ids.size;
  check_vector("token_ids", token_ids, num_tokens);
  check_matrix("table", inputs.table, inputs.table.rows, config.top_k);
  const ConstTensorView& logits = inputs.logits;
  if (logits.data != nullptr || logits.rows != 0 || logits.cols != 0) {
    cpu::check_logits(logits, num_tokens, config.num_experts);
  }
  cpu::check_routed(config, result, num_tokens);
  if (!result.loss_sums.empty()) {
    refuse("loss_sums has ", result.loss_sums.size, " elements, must be empty");
  }
}

}  // namespace

void fill_hash_table(int32_t num_experts, uint64_t seed, MatrixView<int32_t> table) {
  if (num_experts < 1 || num_experts > kMaxExperts) {
    refuse("num_experts is ", num_experts, ", must be in [1, ", kMaxExperts, "]");
  }
  const int64_t most = std::min(num_experts, kMaxTopK);
  if (table.cols < 1 || table.cols > most) {
    refuse("table has ", table.cols, " columns, must have from 1 to ", most);
  }
  check_matrix("table", table, table.rows, table.cols);
  for (int64_t token_id = 0; token_id < table.rows; ++token_id) {
    const uint64_t row_hash = mixed(mixed(seed) ^ static_cast<uint64_t>(token_id));
    fill_hash_row(num_experts, row_hash, static_cast<int32_t>(table.cols), table.row(token_id));
  }
}

HashRouter::HashRouter(const RouterConfig& config, Backend backend, CpuThreads threads) {
  validate(config);
  implementation_ = cpu::make_hash_router(config, backend, threads);
}

HashRouter::~HashRouter() = default;
HashRouter::HashRouter(HashRouter&&) noexcept = default;
HashRouter& HashRouter::operator=(HashRouter&&) noexcept = default;

const RouterConfig& HashRouter::config() const { return implementation_->config; }

Backend HashRouter::backend() const { return implementation_->backend; }

int64_t HashRouter::workspace_bytes(int64_t max_tokens) const {
  if (max_tokens < 0) refuse("max_tokens is ", max_tokens, ", must be 0 or more");
  return implementation_->workspace_bytes(max_tokens);
}

void HashRouter::route(const HashRoutingInputs& inputs, const RoutingResult& result,
                       std::span<std::byte> workspace, StreamView stream) const {
  check_call(config(), inputs, result);
  cpu::check_workspace(workspace, implementation_->workspace_bytes(inputs.token_ids.size));
  implementation_->route(inputs, result, workspace, stream);
}

}  // namespace switchyard

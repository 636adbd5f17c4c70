#include "bench/gpu_batches.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "cuda/sorting_router.h"
#include "tests/simt/device_array.h"

namespace switchyard::bench {
namespace {

using test::DeviceArray;
using test::require_success;

PermutationConfig sorting_of(const RouterConfig& config) {
  return {.num_experts = config.num_expert_ids(), .top_k = config.num_slots()};
}

/// One batch's arrays on the device.
struct Set {
  Set(const SortingRouter& router, const RoutingInputs& host, int64_t tokens)
      : num_tokens(tokens),
        top_k(router.router().config().num_slots()),
        logits(static_cast<size_t>(tokens * host.logits.cols * size_of(host.logits.dtype))),
        bias(static_cast<size_t>(host.selection_bias.size)),
        ids(static_cast<size_t>(tokens * top_k)),
        weights(ids.size()),
        counts(static_cast<size_t>(router.router().config().num_expert_ids())),
        tokens_per_expert(counts.size()),
        expert_offsets(counts.size() + 1),
        row_to_assignment(static_cast<size_t>(router.permuter().sizes(tokens).num_rows)),
        assignment_to_row(ids.size()),
        block_experts(static_cast<size_t>(router.permuter().sizes(tokens).num_blocks)),
        totals(1),
        workspace(static_cast<size_t>(router.workspace_bytes(tokens))) {
    require_success(
        cudaMemcpy(logits.data(), host.logits.data, logits.size(), cudaMemcpyHostToDevice));
    inputs.logits = host.logits;
    inputs.logits.data = logits.data();
    if (host.selection_bias.empty()) return;
    require_success(cudaMemcpy(bias.data(), host.selection_bias.data, bias.size() * sizeof(float),
                               cudaMemcpyHostToDevice));
    inputs.selection_bias = {bias.data(), host.selection_bias.size};
  }

  [[nodiscard]] RoutingResult result(bool with_counts) const {
    RoutingResult result;
    result.expert_ids = {ids.data(), num_tokens, top_k};
    result.gate_weights = MatrixView<float>(weights.data(), num_tokens, top_k);
    if (with_counts) {
      result.tokens_per_expert = {counts.data(), static_cast<int64_t>(counts.size())};
    }
    return result;
  }
  [[nodiscard]] Permutation permutation() const {
    const auto size = [](const auto& array) { return static_cast<int64_t>(array.size()); };
    return {{tokens_per_expert.data(), size(tokens_per_expert)},
            {expert_offsets.data(), size(expert_offsets)},
            {row_to_assignment.data(), size(row_to_assignment)},
            {assignment_to_row.data(), num_tokens, top_k},
            {block_experts.data(), size(block_experts)},
            totals.data()};
  }
  [[nodiscard]] std::span<std::byte> workspace_bytes() const {
    return {workspace.data(), workspace.size()};
  }

  int64_t num_tokens;
  int32_t top_k;
  RoutingInputs inputs;
  DeviceArray<std::byte> logits;
  DeviceArray<float> bias;
  DeviceArray<int32_t> ids;
  DeviceArray<float> weights;
  DeviceArray<int64_t> counts;
  DeviceArray<int64_t> tokens_per_expert;
  DeviceArray<int64_t> expert_offsets;
  DeviceArray<int64_t> row_to_assignment;
  DeviceArray<int64_t> assignment_to_row;
  DeviceArray<int32_t> block_experts;
  DeviceArray<PermutationTotals> totals;
  DeviceArray<std::byte> workspace;
};

template <typename T>
void fill(const DeviceArray<T>& array, int byte) {
  require_success(cudaMemset(array.data(), byte, array.size() * sizeof(T)));
}

template <typename T>
void require_equal(const char* name, const std::vector<T>& actual, const T* expected) {
  if (std::memcmp(actual.data(), expected, actual.size() * sizeof(T)) != 0) {
    throw std::runtime_error(std::string(name) + " differ from the CPU's");
  }
}

}  // namespace

struct GpuBatches::State {
  State(const RoutingCase& routing_case, int64_t tokens, DataType dtype)
      : num_tokens(tokens),
        router(routing_case.config, sorting_of(routing_case.config), Backend::kCuda),
        several(cuda::make_cuda_sorting_router(
            Router(routing_case.config, Backend::kCuda),
            Permuter(sorting_of(routing_case.config), Backend::kCuda),
            cuda::SortingLaunches::kSeveral)),
        host(routing_case, tokens, dtype) {}

  [[nodiscard]] const Set& set(int copy) const {
    return *sets[static_cast<size_t>(copy) % sets.size()];
  }

  int64_t num_tokens;
  SortingRouter router;
  std::unique_ptr<SortingRouter::Implementation> several;  ///< launches
  RoutingBatch host;
  std::vector<std::unique_ptr<Set>> sets;
  std::vector<int32_t> ids;
  std::vector<float> weights;
  std::vector<int64_t> row_to_assignment;
};

GpuBatches::GpuBatches(const RoutingCase& routing_case, int64_t num_tokens, DataType dtype,
                       int64_t cache_bytes, int max_sets)
    : state_(std::make_unique<State>(routing_case, num_tokens, dtype)) {
  State& state = *state_;
  const int64_t wanted = std::clamp<int64_t>(cache_bytes / state.host.bytes() + 1, 1, max_sets);
  while (static_cast<int64_t>(state.sets.size()) < wanted) {
    state.sets.push_back(std::make_unique<Set>(state.router, state.host.inputs(), num_tokens));
  }
  // What the first set must give.
  const SortingRouter cpu(state.router.router().config(), state.router.permuter().config(),
                          Backend::kCpu);
  const PermutationConfig& config = cpu.permuter().config();
  const PermutationSizes sizes = cpu.permuter().sizes(num_tokens);
  Buffer<int64_t> tokens_per_expert(config.num_local());
  Buffer<int64_t> expert_offsets(config.num_local() + 1);
  Buffer<int64_t> assignment_to_row(num_tokens * config.top_k);
  Buffer<int32_t> block_experts(sizes.num_blocks);
  Buffer<PermutationTotals> totals(1);
  Buffer<std::byte> workspace(cpu.workspace_bytes(num_tokens));
  state.ids.resize(static_cast<size_t>(num_tokens * config.top_k));
  state.weights.resize(state.ids.size());
  state.row_to_assignment.resize(static_cast<size_t>(sizes.num_rows));
  RoutingResult result;
  result.expert_ids = {state.ids.data(), num_tokens, config.top_k};
  result.gate_weights = MatrixView<float>(state.weights.data(), num_tokens, config.top_k);
  cpu.route(state.host.inputs(), result,
            {tokens_per_expert.view(),
             expert_offsets.view(),
             {state.row_to_assignment.data(), sizes.num_rows},
             assignment_to_row.matrix(num_tokens, config.top_k),
             block_experts.view(),
             totals.data()},
            workspace.bytes());
}

GpuBatches::~GpuBatches() = default;

std::vector<TimedCall> GpuBatches::calls() const {
  const State& state = *state_;
  const Router& router = state.router.router();
  const Permuter& permuter = state.router.permuter();
  const auto sort = [&](const Set& set, StreamView stream) {
    const RoutingResult result = set.result(false);
    permuter.sort(result.expert_ids, result.gate_weights, set.permutation(), set.workspace_bytes(),
                  stream);
  };
  const int64_t routed = state.host.bytes();
  const int64_t assignments = state.num_tokens * permuter.config().top_k;
  // Ids once, and a row and its inverse for each.
  const int64_t sorted = assignments * static_cast<int64_t>(sizeof(int32_t) + 2 * sizeof(int64_t));
  return {
      {"route", routed,
       [&](int copy, StreamView stream) {
         const Set& set = state.set(copy);
         router.route(set.inputs, set.result(false), {}, stream);
       }},
      {"route_counts", routed,
       [&](int copy, StreamView stream) {
         const Set& set = state.set(copy);
         router.route(set.inputs, set.result(true), {}, stream);
       }},
      {"sort", sorted, [&, sort](int copy, StreamView stream) { sort(state.set(copy), stream); }},
      {"route_then_sort", routed + sorted,
       [&, sort](int copy, StreamView stream) {
         const Set& set = state.set(copy);
         router.route(set.inputs, set.result(false), {}, stream);
         sort(set, stream);
       }},
      {"route_and_sort", routed + sorted,
       [&](int copy, StreamView stream) {
         const Set& set = state.set(copy);
         state.router.route(set.inputs, set.result(false), set.permutation(), set.workspace_bytes(),
                            stream);
       }},
      {"route_and_sort_several", routed + sorted, [&](int copy, StreamView stream) {
         const Set& set = state.set(copy);
         state.several->route(set.inputs, set.result(false), set.permutation(),
                              set.workspace_bytes(), stream);
       }}};
}

void GpuBatches::check() const {
  const State& state = *state_;
  const std::vector<TimedCall> all = calls();
  for (size_t i = 0; i < state.sets.size(); ++i) all.front().enqueue(static_cast<int>(i), {});
  const Set& set = state.set(0);
  for (const TimedCall& call : all) {
    if (call.name != "sort") {
      fill(set.ids, 0xff);
      fill(set.weights, 0xff);
    }
    if (call.name.find("sort") != std::string::npos) fill(set.row_to_assignment, 0xff);
    call.enqueue(0, {});
    require_success(cudaDeviceSynchronize());
    require_equal((call.name + ": ids").c_str(), set.ids.download(), state.ids.data());
    require_equal((call.name + ": weights").c_str(), set.weights.download(), state.weights.data());
    if (call.name.find("sort") == std::string::npos) continue;
    require_equal((call.name + ": rows").c_str(), set.row_to_assignment.download(),
                  state.row_to_assignment.data());
  }
}

int GpuBatches::num_sets() const { return static_cast<int>(state_->sets.size()); }
RoutingInputs GpuBatches::inputs(int copy) const { return state_->set(copy).inputs; }
const SortingRouter& GpuBatches::router() const { return state_->router; }
Permutation GpuBatches::permutation() const { return state_->set(0).permutation(); }
ConstTensorView GpuBatches::gate_weights() const {
  return state_->set(0).result(false).gate_weights;
}
const std::vector<int32_t>& GpuBatches::expert_ids() const { return state_->ids; }
const std::vector<float>& GpuBatches::host_gate_weights() const { return state_->weights; }

}  // namespace switchyard::bench

// The front door of routing and sorting in one call.
#include "switchyard/sorting_router.h"

#include <algorithm>
#include <utility>

#include "cpu/backend_registry.h"
#include "cpu/call_checks.h"
#include "cpu/refuse.h"
#include "switchyard/sorting_router_backend.h"

namespace switchyard {

using cpu::refuse;

SortingRouter::SortingRouter(const RouterConfig& routing, const PermutationConfig& permutation,
                             Backend backend, CpuThreads threads) {
  validate(routing);
  validate(permutation);
  if (permutation.num_experts != routing.num_expert_ids()) {
    refuse("permutation.num_experts is ", permutation.num_experts, ", must be the router's ",
           routing.num_expert_ids(), " expert ids");
  }
  if (permutation.top_k != routing.num_slots()) {
    refuse("permutation.top_k is ", permutation.top_k, ", must be the router's ",
           routing.num_slots(), " slots");
  }
  implementation_ = cpu::make_sorting_router(Router(routing, backend, threads),
                                             Permuter(permutation, backend, threads));
}

SortingRouter::~SortingRouter() = default;
SortingRouter::SortingRouter(SortingRouter&&) noexcept = default;
SortingRouter& SortingRouter::operator=(SortingRouter&&) noexcept = default;

const Router& SortingRouter::router() const { return implementation_->router; }

const Permuter& SortingRouter::permuter() const { return implementation_->permuter; }

int64_t SortingRouter::workspace_bytes(int64_t max_tokens) const {
  // One after the other, so both use the same bytes.
  return std::max(router().workspace_bytes(max_tokens), permuter().workspace_bytes(max_tokens));
}

void SortingRouter::route(const RoutingInputs& inputs, const RoutingResult& result,
                          const Permutation& permutation, std::span<std::byte> workspace,
                          StreamView stream) const {
  cpu::check_route_call(router().config(), inputs, result);
  cpu::check_sort_call(permuter().config(), result.expert_ids, result.gate_weights, permutation);
  cpu::check_workspace(workspace, workspace_bytes(inputs.logits.rows));
  implementation_->route(inputs, result, permutation, workspace, stream);
}

}  // namespace switchyard

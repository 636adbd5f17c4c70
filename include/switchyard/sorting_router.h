// Routing and sorting in one call, for servers that always want both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "switchyard/permutation.h"
#include "switchyard/router.h"

namespace switchyard {

/// Routes batches and sorts their assignments by expert: the bytes of Router::route() and then
/// Permuter::sort() on its ids and weights. On GPUs of compute capability 9.0 on, whose blocks
/// reach each other's memory in clusters, batches of up to 8192 assignments (num_tokens * top_k of
/// the permutation) take one launch from logits to permutation; on older ones, up to 16 tokens of
/// up to 8192 assignments. Larger batches, residency preferences, sacrificed_mass and capacities
/// that may drop by weight take several, and the launch of the sort overlaps with the routing.
/// Thread-safe like Router.
class SortingRouter {
 public:
  /// @throws InvalidArgument  when either config is refused, or `permutation` is not for the ids
  ///                          and slots of `routing`: num_experts = num_expert_ids(), top_k =
  ///                          num_slots().
  /// @throws Unavailable      when this build or machine lacks `backend`.
  SortingRouter(const RouterConfig& routing, const PermutationConfig& permutation,
                Backend backend = Backend::kAuto, CpuThreads threads = {});
  ~SortingRouter();
  SortingRouter(SortingRouter&&) noexcept;
  SortingRouter& operator=(SortingRouter&&) noexcept;

  /// What routes; also on its own.
  [[nodiscard]] const Router& router() const;
  /// What sorts, and moves rows by the permutation.
  [[nodiscard]] const Permuter& permuter() const;

  /// Bytes of workspace, in the backend's memory, that route() needs for up to `max_tokens` tokens.
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const;

  /// @param inputs       as for Router::route().
  /// @param result       as for Router::route(); its ids and weights are what is sorted.
  /// @param permutation  as for Permuter::sort(); sizes from permuter().sizes().
  /// @param workspace    at least workspace_bytes(num_tokens), aligned to 16 bytes on devices.
  ///                     Calls in flight need one each.
  /// @throws as both of them do. Nothing is written when an argument is refused.
  /// Neither allocates nor synchronises, so a CUDA graph can capture it. T = 0 is legal.
  void route(const RoutingInputs& inputs, const RoutingResult& result,
             const Permutation& permutation, std::span<std::byte> workspace = {},
             StreamView stream = {}) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard

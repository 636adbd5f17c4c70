// What a backend implements to route and sort in one call. SortingRouter checks shapes first, so
// backends trust theirs.
#pragma once

#include <utility>

#include "switchyard/sorting_router.h"

namespace switchyard {

class SortingRouter::Implementation {
 public:
  Implementation(Router its_router, Permuter its_permuter)
      : router(std::move(its_router)), permuter(std::move(its_permuter)) {}
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  virtual ~Implementation() = default;

  /// Does one after the other unless a backend knows better.
  virtual void route(const RoutingInputs& inputs, const RoutingResult& result,
                     const Permutation& permutation, std::span<std::byte> workspace,
                     StreamView stream) const {
    router.route(inputs, result, workspace, stream);
    permuter.sort(result.expert_ids, result.gate_weights, permutation, workspace, stream);
  }

  const Router router;
  const Permuter permuter;
};

}  // namespace switchyard

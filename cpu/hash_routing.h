// Hash routing on the CPU: the vectorised form.
#pragma once

#include <memory>

#include "cpu/expert_ids.h"
#include "switchyard/hash_routing_backend.h"

namespace switchyard::cpu {

/// One call, checked: every id that is used is in range.
struct HashRoutingCall {
  const RouterConfig& config;
  VectorView<const int32_t> token_ids;
  MatrixView<const int32_t> table;
  ConstTensorView logits;  ///< data == nullptr: none
  const RoutingResult& result;

  /// @throws InvalidArgument  when an id that is used is out of range or repeated.
  HashRoutingCall(const RouterConfig& router_config, const HashRoutingInputs& inputs,
                  const RoutingResult& routing_result)
      : config(router_config),
        token_ids(inputs.token_ids),
        table(inputs.table),
        logits(inputs.logits),
        result(routing_result) {
    check_hash_ids(config, token_ids, table);
  }

  [[nodiscard]] int64_t num_tokens() const { return token_ids.size; }
};

std::unique_ptr<HashRouter::Implementation> make_cpu_hash_router(const RouterConfig& config,
                                                                 const CpuThreads& threads);

}  // namespace switchyard::cpu

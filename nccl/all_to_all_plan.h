// What a plan holds.
#pragma once

#include <cstdint>
#include <vector>

#include "nccl/exchange_layout.h"
#include "nccl/owned_permutation.h"
#include "nccl/plan_arrays.h"
#include "switchyard/all_to_all_plan.h"
#include "switchyard/expert_exchange.h"

namespace switchyard {

class AllToAllPlan::State {
 public:
  State(const ExpertExchangeConfig& config, int rank, Backend backend)
      : layout(config.placement, rank, config.block_rows),
        slot_counts(static_cast<std::size_t>(config.placement.num_ranks()) *
                    static_cast<std::size_t>(config.placement.num_slots())),
        by_slot(backend),
        trips_sent(config.placement.num_ranks()),
        trips_received(config.placement.num_ranks()),
        by_trip(backend),
        arrivals(backend),
        departures(backend) {}

  const void* owner = nullptr;  ///< the exchange
  int64_t serial = -1;          ///< plans that the exchange made before this one; -1: not ready
  int64_t num_tokens = 0;
  int64_t most_tokens = 0;  ///< of any rank
  PlanStatus status;
  bool is_deduplicated = false;
  nccl::ExchangeLayout layout;
  std::vector<int64_t> slot_counts;         ///< [num_ranks, num_slots]
  nccl::OwnedPermutation by_slot;           ///< own assignments in the order of slots
  nccl::MirroredArray<int32_t> slot_ids;    ///< [num_tokens, top_k] where slots are not experts
  nccl::BackendArray<int64_t> slot_tokens;  ///< [num_slots] before capacity
  nccl::PinnedArray<int64_t> tokens_per_expert;
  nccl::PinnedArray<int64_t> expert_offsets;

  // With deduplication. A trip takes one token to one rank.
  nccl::CountedRows trips_sent;
  nccl::CountedRows trips_received;
  nccl::OwnedPermutation by_trip;  ///< tokens to the rows of their trips
  std::vector<int64_t> trip_tokens;
  std::vector<int64_t> last_token;             ///< [num_ranks] that went there
  nccl::MirroredArray<int32_t> trip_slots;     ///< [trips sent, top_k] local slots there, else -1
  nccl::BackendArray<int32_t> received_slots;  ///< [trips received, top_k]
  nccl::BackendArray<std::byte> workspace;     ///< to sort these

  // Where rows do not arrive and depart where they lie.
  nccl::OwnedPermutation arrivals;    ///< rows received to expert rows
  nccl::OwnedPermutation departures;  ///< expert rows to rows sent back
};

}  // namespace switchyard

// The front door of the exchange: checks, and what a plan needs to know of its configuration.
#include "nccl/expert_exchange.h"

#include <algorithm>

#include "nccl/fingerprint.h"
#include "nccl/refuse.h"

namespace switchyard {

using nccl::check_range;
using nccl::refuse;

namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 32;

void check_config(const ExpertExchangeConfig& config, const Communicator& communicator) {
  const ExpertPlacement& placement = config.placement;
  if (placement.num_ranks() != communicator.size()) {
    refuse("placement is for ", placement.num_ranks(), " ranks, must be for the communicator's ",
           communicator.size());
  }
  check_range("placement.num_slots", placement.num_slots(), 1, kMaxPermutationExperts);
  check_range("top_k", config.top_k, 1, kMaxPermutationSlots);
  check_range("max_tokens", config.max_tokens, 0, kMaxTokens);
  check_range("block_rows", config.block_rows, 1, kMaxBlockRows);
  if (config.capacity.drop_policy != DropPolicy::kPosition) {
    refuse("capacity.drop_policy is by weight, must be by position");
  }
  if (config.max_expert_rows < -1) {
    refuse("max_expert_rows is ", config.max_expert_rows, ", must be -1 or more");
  }
}

PermutationConfig sorting_config(const ExpertExchangeConfig& config) {
  return {.num_experts = config.placement.num_slots(),
          .top_k = config.top_k,
          .capacity = config.capacity};
}

/// Rows that come in and are spread over the local slots.
PermutationConfig arrivals_config(const ExpertExchangeConfig& config, int rank, bool makes_trips) {
  return {.num_experts = std::max(1, config.placement.num_slots_of(rank)),
          .top_k = makes_trips ? config.top_k : 1,
          .block_rows = config.block_rows};
}

/// The other ranks learn what is wrong with this one before anything fails.
ExpertExchangeConfig agreed(const ExpertExchangeConfig& config, Communicator& communicator) {
  std::string refusal;
  try {
    check_config(config, communicator);
    validate(sorting_config(config));
  } catch (const InvalidArgument& error) {
    refusal = error.what();
  }
  nccl::Fingerprint factor;
  factor.add(static_cast<int64_t>(config.capacity.factor * 0x1p32));
  nccl::Agreement agreement(communicator, 0);
  agreement.make(
      "configure",
      {{"placement.num_experts", config.placement.num_experts()},
       {"placement.num_slots", config.placement.num_slots()},
       {"the placement's fingerprint", static_cast<int64_t>(config.placement.fingerprint())},
       {"top_k", config.top_k},
       {"max_tokens", config.max_tokens},
       {"block_rows", config.block_rows},
       {"capacity.mode", static_cast<int64_t>(config.capacity.mode)},
       {"capacity.rows", config.capacity.rows},
       {"the fingerprint of capacity.factor", static_cast<int64_t>(factor.value())},
       {"deduplicate", config.deduplicate ? 1 : 0},
       {"max_expert_rows", config.max_expert_rows},
       {"the communicator's staging_bytes", communicator.options().staging_bytes}},
      {}, refusal);
  return config;
}

int32_t num_slots_of(const ExpertExchangeConfig& config) { return config.placement.num_slots(); }

}  // namespace

ExpertExchange::Implementation::Implementation(const ExpertExchangeConfig& exchange_config,
                                               Communicator& communicator, CpuThreads threads)
    : config(agreed(exchange_config, communicator)),
      communicator_(communicator),
      plain_way_(communicator.shares_memory()          ? Way::kLent
                 : communicator.moves_scattered_rows() ? Way::kScattered
                                                       : Way::kContiguous),
      sorter_(sorting_config(config), communicator.backend(), threads),
      arrivals_(arrivals_config(config, communicator.rank(), makes_trips(plain_way_)),
                communicator.backend(), threads),
      departures_({.num_experts = 1, .top_k = 1}, communicator.backend(), threads),
      trips_({.num_experts = 1, .top_k = config.top_k}, communicator.backend(), threads),
      plan_agreement_(
          communicator,
          sizeof(int64_t) * static_cast<std::size_t>(num_slots_of(config) + communicator.size())),
      call_agreement_(communicator, 0),
      way_(plain_way_),
      lent_(static_cast<std::size_t>(communicator.size())) {
  for (int32_t rank = 0; rank < config.placement.num_ranks(); ++rank) {
    slot_ranks_.insert(slot_ranks_.end(),
                       static_cast<std::size_t>(config.placement.num_slots_of(rank)), rank);
  }
  if (plain_way_ == Way::kScattered && backend() == Backend::kCpu) {
    staged_.emplace(config.placement, sorter_, communicator.rank(), config.top_k,
                    config.max_tokens);
  }
  if (!config.placement.slots_are_experts() || config.deduplicate) {
    assigner_.emplace(config.placement, config.top_k, backend(), threads);
  }
}

ExpertExchange::ExpertExchange(const ExpertExchangeConfig& config, Communicator& communicator,
                               CpuThreads threads)
    : implementation_(std::make_unique<Implementation>(config, communicator, threads)) {}

ExpertExchange::~ExpertExchange() = default;

const ExpertExchangeConfig& ExpertExchange::config() const { return implementation_->config; }

AllToAllPlan ExpertExchange::make_plan() const {
  return AllToAllPlan(implementation_->make_state());
}

int64_t ExpertExchange::plan_workspace_bytes() const {
  return implementation_->plan_workspace_bytes();
}

void ExpertExchange::plan(MatrixView<const int32_t> expert_ids, AllToAllPlan& plan,
                          std::span<std::byte> workspace, StreamView stream) {
  implementation_->plan(expert_ids, plan.state(), workspace, stream);
}

int64_t ExpertExchange::dispatch_workspace_bytes(const AllToAllPlan& plan,
                                                 int64_t row_bytes) const {
  if (row_bytes < 0) refuse("row_bytes is ", row_bytes, ", must be 0 or more");
  return implementation_->workspace_bytes(Implementation::Phase::kDispatch, plan.state(),
                                          row_bytes);
}

void ExpertExchange::start_dispatch(const AllToAllPlan& plan, const DispatchRows& rows,
                                    const DispatchRows& scales, std::span<std::byte> workspace,
                                    StreamView stream) {
  implementation_->start_dispatch(plan.state(), rows, scales, workspace, stream);
}

void ExpertExchange::finish_dispatch(StreamView stream) {
  implementation_->finish_dispatch(stream);
}

int64_t ExpertExchange::combine_workspace_bytes(const AllToAllPlan& plan, int64_t hidden_size,
                                                DataType dtype) const {
  if (hidden_size < 0) refuse("hidden_size is ", hidden_size, ", must be 0 or more");
  return implementation_->workspace_bytes(Implementation::Phase::kCombine, plan.state(),
                                          hidden_size * size_of(dtype));
}

void ExpertExchange::start_combine(const AllToAllPlan& plan, const CombineRows& rows,
                                   std::span<std::byte> workspace, StreamView stream) {
  implementation_->start_combine(plan.state(), rows, workspace, stream);
}

void ExpertExchange::finish_combine(StreamView stream) { implementation_->finish_combine(stream); }

AllToAllPlan::AllToAllPlan(std::unique_ptr<State> state) : state_(std::move(state)) {}
AllToAllPlan::~AllToAllPlan() = default;
AllToAllPlan::AllToAllPlan(AllToAllPlan&&) noexcept = default;
AllToAllPlan& AllToAllPlan::operator=(AllToAllPlan&&) noexcept = default;

int64_t AllToAllPlan::num_tokens() const { return state_->num_tokens; }

PlanStatus AllToAllPlan::status() const { return state_->status; }

AllToAllCounts AllToAllPlan::dispatch_counts() const {
  return state_->is_deduplicated ? nccl::counts_of(state_->trips_sent, state_->trips_received)
                                 : nccl::counts_of(state_->layout.sent, state_->layout.received);
}

AllToAllCounts AllToAllPlan::combine_counts() const {
  return nccl::counts_of(state_->layout.received, state_->layout.sent);
}

MatrixView<const int64_t> AllToAllPlan::slot_counts() const {
  const auto num_ranks = static_cast<int64_t>(state_->layout.rank_rows.size());
  return {state_->slot_counts.data(), num_ranks,
          static_cast<int64_t>(state_->slot_counts.size()) / num_ranks};
}

VectorView<const int64_t> AllToAllPlan::tokens_per_expert() const {
  return {state_->tokens_per_expert.data(), state_->layout.num_local_slots()};
}

VectorView<const int64_t> AllToAllPlan::expert_offsets() const {
  return {state_->expert_offsets.data(), state_->layout.num_local_slots() + 1};
}

int64_t AllToAllPlan::num_expert_rows() const { return state_->layout.expert_offsets.back(); }

const PermutationTotals& AllToAllPlan::totals() const { return state_->by_slot.totals(); }

}  // namespace switchyard

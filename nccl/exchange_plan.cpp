// A plan: this rank's assignments sorted by slot, everybody's counts, and where rows go by them.
#include <algorithm>
#include <cstring>

#include "nccl/expert_exchange.h"
#include "nccl/refuse.h"

namespace switchyard {

using nccl::refuse;

std::unique_ptr<AllToAllPlan::State> ExpertExchange::Implementation::make_state() const {
  auto state = std::make_unique<AllToAllPlan::State>(config, communicator_.rank(), backend());
  state->owner = this;
  state->is_deduplicated = config.deduplicate;
  const int32_t num_local = state->layout.num_local_slots();
  nccl::grow(state->tokens_per_expert, num_local, backend());
  nccl::grow(state->expert_offsets, num_local + 1, backend());
  state->by_slot.resize(sorter_, config.max_tokens);
  if (assigner_) {
    nccl::grow(state->slot_ids, config.max_tokens * config.top_k, backend());
    nccl::grow(state->slot_tokens, config.placement.num_slots(), backend());
  }
  return state;
}

int64_t ExpertExchange::Implementation::plan_workspace_bytes() const {
  const int64_t sorting = sorter_.workspace_bytes(config.max_tokens);
  return assigner_ ? std::max(sorting, assigner_->workspace_bytes(config.max_tokens)) : sorting;
}

void ExpertExchange::Implementation::check_plan_call(MatrixView<const int32_t> expert_ids,
                                                     std::span<std::byte> workspace,
                                                     StreamView stream) const {
  if (expert_ids.rows > config.max_tokens) {
    refuse("expert_ids has ", expert_ids.rows, " rows, must have at most max_tokens, ",
           config.max_tokens);
  }
  const int64_t needed = plan_workspace_bytes();
  if (static_cast<int64_t>(workspace.size()) < needed) {
    refuse("workspace holds ", workspace.size(), " bytes, must hold ", needed);
  }
  if (communicator_.is_captured(stream)) {
    refuse("stream is being captured, must not be: a plan waits for it");
  }
}

void ExpertExchange::Implementation::sort(MatrixView<const int32_t> expert_ids,
                                          AllToAllPlan::State& state,
                                          std::span<std::byte> workspace, StreamView stream) const {
  check_plan_call(expert_ids, workspace, stream);
  MatrixView<const int32_t> ids = expert_ids;
  if (assigner_) {
    const MatrixView<int32_t> slot_ids{state.slot_ids.data(), expert_ids.rows, config.top_k};
    assigner_->assign(expert_ids, communicator_.rank(), slot_ids,
                      {state.slot_tokens.data(), state.slot_tokens.size()}, workspace, stream);
    ids = slot_ids;
  }
  state.by_slot.resize(sorter_, expert_ids.rows);
  sorter_.sort(ids, {}, state.by_slot.view(), workspace, stream);
  state.by_slot.download_counts(stream);
  if (config.deduplicate) {  // the host counts and lists trips
    state.by_slot.download_rows(stream);
    state.slot_ids.download(ids.rows * ids.cols, stream);
  }
  communicator_.wait("plan", stream);
}

void ExpertExchange::Implementation::plan(MatrixView<const int32_t> expert_ids,
                                          AllToAllPlan::State& state,
                                          std::span<std::byte> workspace, StreamView stream) {
  if (state.owner != this) refuse("plan belongs to another exchange");
  if (phase_ != Phase::kIdle) refuse("plan cannot begin before what has been started is finished");
  state.serial = -1;
  state.status = {};
  state.num_tokens = expert_ids.rows;
  std::string refusal;
  try {
    sort(expert_ids, state, workspace, stream);
  } catch (const InvalidArgument& error) {
    refusal = error.what();
  } catch (const std::exception& error) {
    communicator_.abort(error.what());
    throw;
  }
  const std::span<std::byte> told = plan_agreement_.extra();
  const auto num_slots = static_cast<std::size_t>(config.placement.num_slots());
  const std::size_t slot_bytes = num_slots * sizeof(int64_t);
  if (refusal.empty()) {
    std::memcpy(told.data(), state.by_slot.on_host().tokens_per_expert.data, slot_bytes);
    if (config.deduplicate) count_trips(state);
    std::memcpy(told.data() + slot_bytes, state.trips_sent.counts.data(), told.size() - slot_bytes);
  }
  plan_agreement_.make("plan", {{"the number of this plan", num_plans_}}, {state.num_tokens},
                       refusal);
  state.most_tokens = 0;
  for (int32_t rank = 0; rank < config.placement.num_ranks(); ++rank) {
    state.most_tokens = std::max(state.most_tokens, plan_agreement_.told(rank, 0));
  }
  state.serial = num_plans_++;
  take_counts(state);
  for (int32_t rank = 0; rank < config.placement.num_ranks(); ++rank) {
    const int64_t rows = state.layout.rank_rows[static_cast<std::size_t>(rank)];
    if (config.max_expert_rows < 0 || rows <= config.max_expert_rows) continue;
    state.status = {false, rank, rows};
    return;
  }
  end_group_if_failing([&] {
    if (makes_trips(plain_way_)) list_trips(state, stream);
    if (unpacks(plain_way_)) prepare_arrivals(state, stream);
    if (plain_way_ == Way::kContiguous) prepare_departures(state, stream);
  });
  state.status.is_ready = true;
}

namespace {

/// Calls visit(token, slot, rank) for every assignment that was kept.
template <typename Visit>
void for_each_kept(const AllToAllPlan::State& state, const std::vector<int32_t>& slot_ranks,
                   int32_t top_k, const Visit& visit) {
  const MatrixView<int64_t>& rows = state.by_slot.on_host().assignment_to_row;
  for (int64_t token = 0; token < state.num_tokens; ++token) {
    for (int32_t slot = 0; slot < top_k; ++slot) {
      if (rows.row(token)[slot] < 0) continue;
      const int32_t id = state.slot_ids.host()[token * top_k + slot];
      visit(token, slot, slot_ranks[static_cast<std::size_t>(id)]);
    }
  }
}

}  // namespace

void ExpertExchange::Implementation::count_trips(AllToAllPlan::State& state) const {
  std::vector<int64_t>& counts = state.trips_sent.counts;
  std::fill(counts.begin(), counts.end(), 0);
  state.last_token.assign(counts.size(), -1);
  for_each_kept(state, slot_ranks_, config.top_k, [&](int64_t token, int32_t, int32_t rank) {
    const auto index = static_cast<std::size_t>(rank);
    counts[index] += state.last_token[index] != token ? 1 : 0;
    state.last_token[index] = token;
  });
  state.trips_sent.add_up();
}

void ExpertExchange::Implementation::take_counts(AllToAllPlan::State& state) {
  const auto num_slots = static_cast<std::size_t>(config.placement.num_slots());
  const auto own = static_cast<std::size_t>(communicator_.rank());
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    const std::span<const std::byte> told = plan_agreement_.extra_of(rank);
    const auto index = static_cast<std::size_t>(rank);
    std::memcpy(state.slot_counts.data() + index * num_slots, told.data(),
                num_slots * sizeof(int64_t));
    std::memcpy(&state.trips_received.counts[index],
                told.data() + (num_slots + own) * sizeof(int64_t), sizeof(int64_t));
  }
  state.trips_received.add_up();
  state.layout.lay_out(
      {state.slot_counts.data(), communicator_.size(), static_cast<int64_t>(num_slots)});
  std::copy(state.layout.tokens_per_expert.begin(), state.layout.tokens_per_expert.end(),
            state.tokens_per_expert.data());
  std::copy(state.layout.expert_offsets.begin(), state.layout.expert_offsets.end(),
            state.expert_offsets.data());
}

/// Tells every rank which of its slots the tokens that come to it are for.
void ExpertExchange::Implementation::list_trips(AllToAllPlan::State& state, StreamView stream) {
  const int32_t top_k = config.top_k;
  const int64_t num_sent = state.trips_sent.total();
  const int64_t num_received = state.trips_received.total();
  nccl::grow(state.trip_slots, num_sent * top_k, backend());
  nccl::grow(state.received_slots, num_received * top_k, backend());
  std::fill_n(state.trip_slots.host(), num_sent * top_k, -1);
  state.trip_tokens.resize(static_cast<std::size_t>(num_sent));
  state.by_trip.resize(trips_, state.num_tokens);
  const MatrixView<int64_t> rows = state.by_trip.on_host().assignment_to_row;
  std::fill_n(rows.data, rows.rows * rows.cols, -1);
  state.by_trip.keep_as_one_expert(num_sent);

  std::vector<int64_t> next = state.trips_sent.offsets;
  state.last_token.assign(next.size(), -1);
  for_each_kept(state, slot_ranks_, top_k, [&](int64_t token, int32_t slot, int32_t rank) {
    const auto index = static_cast<std::size_t>(rank);
    if (state.last_token[index] != token) {
      state.last_token[index] = token;
      rows.row(token)[slot] = next[index];
      state.trip_tokens[static_cast<std::size_t>(next[index]++)] = token;
    }
    const int32_t id = state.slot_ids.host()[token * top_k + slot];
    state.trip_slots.host()[(next[index] - 1) * top_k + slot] =
        id - config.placement.slot_offsets()[index];
  });

  state.by_trip.upload(stream);
  state.trip_slots.upload(num_sent * top_k, stream);

  const int64_t row_bytes = top_k * static_cast<int64_t>(sizeof(int32_t));
  const AllToAllCounts counts = nccl::counts_of(state.trips_sent, state.trips_received);
  const SentRows sent{
      {reinterpret_cast<const std::byte*>(state.trip_slots.data()), num_sent, row_bytes},
      {},
      counts.send_offsets};
  const ReceivedRows received{
      {reinterpret_cast<std::byte*>(state.received_slots.data()), num_received, row_bytes},
      counts.recv_offsets,
      {},
      {}};
  communicator_.start_all_to_all("plan", sent, received, stream);
  communicator_.finish_all_to_all(stream);
  // What follows may release memory, which on devices waits for all that was enqueued.
  communicator_.wait("plan", stream);
}

void ExpertExchange::Implementation::prepare_arrivals(AllToAllPlan::State& state,
                                                      StreamView stream) const {
  if (makes_trips(plain_way_)) {
    const int64_t num_received = state.trips_received.total();
    state.arrivals.resize(arrivals_, num_received);
    nccl::grow(state.workspace, arrivals_.workspace_bytes(num_received), backend());
    arrivals_.sort(
        {state.received_slots.data(), num_received, config.top_k}, {}, state.arrivals.view(),
        {state.workspace.data(), static_cast<std::size_t>(state.workspace.size())}, stream);
    return;
  }
  const int64_t num_received = state.layout.received.total();
  state.arrivals.resize(arrivals_, num_received);
  const Permutation& arrivals = state.arrivals.on_host();
  int64_t arrived = 0;
  for (const RowSegment& segment : state.layout.segments) {
    for (int64_t i = 0; i < segment.num_rows; ++i) {
      arrivals.assignment_to_row.row(arrived++)[0] = segment.first_row + i;
    }
  }
  const int32_t num_local = state.layout.num_local_slots();
  std::copy_n(state.layout.tokens_per_expert.data(), num_local, arrivals.tokens_per_expert.data);
  // A rank without slots has one expert all the same, and no rows for it.
  std::fill_n(arrivals.expert_offsets.data, arrivals.expert_offsets.size, 0);
  std::copy_n(state.layout.expert_offsets.data(), num_local + 1, arrivals.expert_offsets.data);
  *arrivals.totals = {.num_rows = state.layout.expert_offsets.back(),
                      .kept_assignments = num_received};
  state.arrivals.upload(stream);
}

void ExpertExchange::Implementation::prepare_departures(AllToAllPlan::State& state,
                                                        StreamView stream) const {
  const int64_t num_rows = state.layout.expert_offsets.back();
  state.departures.resize(departures_, num_rows);
  const Permutation& departures = state.departures.on_host();
  std::fill_n(departures.assignment_to_row.data, num_rows, -1);
  int64_t departed = 0;
  for (const RowSegment& segment : state.layout.segments) {
    for (int64_t i = 0; i < segment.num_rows; ++i) {
      departures.assignment_to_row.row(segment.first_row + i)[0] = departed++;
    }
  }
  state.departures.keep_as_one_expert(departed);
  state.departures.upload(stream);
}

}  // namespace switchyard

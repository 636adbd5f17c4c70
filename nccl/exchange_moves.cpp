// Dispatch and combine by a plan.
#include <algorithm>
#include <cstring>

#include "nccl/exchange_checks.h"
#include "nccl/expert_exchange.h"
#include "nccl/refuse.h"

namespace switchyard {

using nccl::check_workspace;
using nccl::refuse;
using nccl::WorkspaceParts;

namespace {

constexpr const char* kDispatch = "dispatch";
constexpr const char* kCombine = "combine";

MatrixView<const std::byte> bytes_of(const ConstTensorView& tensor) {
  const int64_t element = size_of(tensor.dtype);
  return {static_cast<const std::byte*>(tensor.data), tensor.rows, tensor.cols * element,
          tensor.row_stride * element};
}

bool is_given(const DispatchRows& rows) {
  return rows.tokens.cols != 0 || rows.expert_rows.cols != 0;
}

/// Rows between the experts'.
void clear_padding(const AllToAllPlan::State& state, const MatrixView<std::byte>& rows) {
  const nccl::ExchangeLayout& layout = state.layout;
  for (std::size_t slot = 0; slot < layout.tokens_per_expert.size(); ++slot) {
    const int64_t end = layout.expert_offsets[slot + 1];
    for (int64_t row = layout.expert_offsets[slot] + layout.tokens_per_expert[slot]; row < end;
         ++row) {
      std::memset(rows.row(row), 0, static_cast<std::size_t>(rows.cols));
    }
  }
}

/// `count` dense rows.
MatrixView<std::byte> dense(std::byte* memory, int64_t count, int64_t row_bytes) {
  return {memory, count, row_bytes};
}

}  // namespace

// What a refusal on one rank means for the others.
template <typename Check>
std::string ExpertExchange::Implementation::refusal_of(const Check& check) const {
  try {
    check();
  } catch (const InvalidArgument& error) {
    if (!agrees_on_calls()) throw;
    return error.what();
  }
  return "";
}

void ExpertExchange::Implementation::check_state(const AllToAllPlan::State& state) const {
  if (state.owner != this) refuse("plan belongs to another exchange");
  if (phase_ != Phase::kIdle) refuse("what has been started before is not finished");
  if (state.serial < 0) refuse("plan has not been made");
  if (!state.status.is_ready) {
    refuse("plan is not ready: rank ", state.status.rank, " needs ", state.status.needed_rows,
           " expert rows, max_expert_rows is ", config.max_expert_rows);
  }
}

ExpertExchange::Implementation::Scratch ExpertExchange::Implementation::cut(
    Way way, Phase phase, const AllToAllPlan::State& state, int64_t row_bytes,
    std::byte* memory) const {
  const bool goes_out = phase == Phase::kDispatch;
  const nccl::CountedRows& sent = goes_out ? state.layout.sent : state.layout.received;
  const nccl::CountedRows& received = goes_out ? state.layout.received : state.layout.sent;
  const bool trips = goes_out && makes_trips(way);
  WorkspaceParts parts(memory);
  Scratch scratch;
  if (way == Way::kLent) {
    scratch.addresses = parts.take<std::byte*>(state.num_tokens * config.top_k);
  }
  if (way == Way::kScattered && !trips) scratch.order = parts.take<int64_t>(sent.total());
  if (way == Way::kContiguous) {
    // Whole permutations are moved, padding among them.
    const int64_t rows = !goes_out ? state.layout.expert_offsets.back()
                         : trips   ? trips_.sizes(state.num_tokens).num_rows
                                   : sorter_.sizes(state.num_tokens).num_rows;
    scratch.packed = parts.take<std::byte>(rows * row_bytes);
  }
  if (trips) {
    scratch.arrived = parts.take<std::byte>(state.trips_received.total() * row_bytes);
  } else if (goes_out ? way == Way::kContiguous : travels(way)) {
    const int64_t rows = goes_out ? received.total() : sorter_.sizes(state.num_tokens).num_rows;
    scratch.arrived = parts.take<std::byte>(rows * row_bytes);
  }
  scratch.bytes = parts.bytes();
  return scratch;
}

int64_t ExpertExchange::Implementation::workspace_bytes(Phase phase,
                                                        const AllToAllPlan::State& state,
                                                        int64_t row_bytes) const {
  // Two kinds of rows share what is not theirs alone.
  return std::max(cut(plain_way_, phase, state, row_bytes, nullptr).bytes,
                  cut(Way::kLent, phase, state, row_bytes, nullptr).bytes) +
         2 * WorkspaceParts::kAlignment;
}

bool ExpertExchange::Implementation::may_be_lent(MatrixView<const std::byte> rows) const {
  return communicator_.can_lend({rows.data, static_cast<std::size_t>(rows.rows * rows.row_stride)});
}

ExpertExchange::Implementation::Way ExpertExchange::Implementation::agreed_way(const char* phase,
                                                                               std::size_t told,
                                                                               int64_t row_bytes) {
  if (!agrees_on_calls()) return plain_way_;
  bool are_lent = true;
  for (int rank = 0; rank < communicator_.size(); ++rank) {
    are_lent = are_lent && call_agreement_.told(rank, told) != 0;
  }
  if (are_lent) return Way::kLent;
  staging_ = staged_ ? communicator_.staging(phase) : nullptr;
  return staging_ != nullptr && staged_->fit(*staging_, row_bytes) ? Way::kStaged : plain_way_;
}

void ExpertExchange::Implementation::fill_addresses(const AllToAllPlan::State& state,
                                                    std::size_t told, std::byte** addresses) const {
  std::fill_n(addresses, state.num_tokens * config.top_k, nullptr);
  const Permutation& sorted = state.by_slot.view();
  for (int32_t slot = 0; slot < config.placement.num_slots(); ++slot) {
    const int64_t count = sorted.tokens_per_expert[slot];
    if (count == 0) continue;
    const int32_t rank = slot_ranks_[static_cast<std::size_t>(slot)];
    const int64_t stride = call_agreement_.told(rank, told);
    std::byte* row = lent_[static_cast<std::size_t>(rank)] +
                     state.layout.peer_rows[static_cast<std::size_t>(slot)] * stride;
    const int64_t* const assignments = sorted.row_to_assignment.data + sorted.expert_offsets[slot];
    for (int64_t i = 0; i < count; ++i, row += stride) addresses[assignments[i]] = row;
  }
}

// Dispatch.

void ExpertExchange::Implementation::start_dispatch(const AllToAllPlan::State& state,
                                                    const DispatchRows& rows,
                                                    const DispatchRows& scales,
                                                    std::span<std::byte> workspace,
                                                    StreamView stream) {
  const std::string refusal = refusal_of([&] {
    check_state(state);
    nccl::check_dispatch_rows("rows.tokens", "rows.expert_rows", rows, state);
    if (is_given(scales)) {
      nccl::check_dispatch_rows("scales.tokens", "scales.expert_rows", scales, state);
    }
    check_workspace(
        workspace, workspace_bytes(Phase::kDispatch, state, rows.tokens.cols + scales.tokens.cols));
  });
  if (agrees_on_calls()) {
    call_agreement_.make(kDispatch,
                         {{"the number of the plan", state.serial},
                          {"bytes a row", rows.tokens.cols},
                          {"bytes of scales a row", scales.tokens.cols}},
                         {rows.expert_rows.row_stride, scales.expert_rows.row_stride,
                          may_be_lent(rows.expert_rows) && may_be_lent(scales.expert_rows)},
                         refusal);
  }
  way_ = agreed_way(kDispatch, 2, std::max(rows.tokens.cols, scales.tokens.cols));
  state_ = &state;
  dispatched_ = rows;
  memory_ = workspace.data();
  end_group_if_failing([&] { send_all(rows, scales, stream); });
  phase_ = Phase::kDispatch;
}

void ExpertExchange::Implementation::send_all(const DispatchRows& rows, const DispatchRows& scales,
                                              StreamView stream) {
  if (is_given(scales)) {
    // In memory behind that of the rows, which are still on their way when this one is used.
    std::byte* const behind = memory_ + rows_memory_bytes(*state_, rows.tokens.cols);
    send_rows(scales, 1, behind, stream);
    arrive_rows(scales, behind, stream);
  }
  send_rows(rows, 0, memory_, stream);
}

int64_t ExpertExchange::Implementation::rows_memory_bytes(const AllToAllPlan::State& state,
                                                          int64_t row_bytes) const {
  // Tables are made anew for each kind and used up at once where ranks lend memory or rows are
  // scattered: for the scales, before the rows' are made.
  return way_ == Way::kContiguous || makes_trips(way_)
             ? cut(way_, Phase::kDispatch, state, row_bytes, nullptr).bytes
             : 0;
}

void ExpertExchange::Implementation::send_rows(const DispatchRows& rows, std::size_t kind,
                                               std::byte* memory, StreamView stream) {
  const AllToAllPlan::State& state = *state_;
  const int64_t row_bytes = rows.tokens.cols;
  const Scratch scratch = cut(way_, Phase::kDispatch, state, row_bytes, memory);
  if (!unpacks(way_)) clear_padding(state, rows.expert_rows);
  if (way_ == Way::kLent) {
    communicator_.lend(kDispatch, rows.expert_rows.rows > 0 ? rows.expert_rows.data : nullptr,
                       lent_);
    fill_addresses(state, kind, scratch.addresses);
    sorter_.permute_to(rows.tokens, {scratch.addresses, state.num_tokens, config.top_k}, stream);
    // At once: what is lent until later could be gone by then, where an exception ends its owner.
    return communicator_.give_back();
  }
  if (way_ == Way::kStaged) return;  // when it arrives
  const AllToAllCounts counts = makes_trips(way_)
                                    ? nccl::counts_of(state.trips_sent, state.trips_received)
                                    : nccl::counts_of(state.layout.sent, state.layout.received);
  const int64_t num_sent = counts.send_offsets[communicator_.size()];
  SentRows sent{rows.tokens, {}, counts.send_offsets};
  if (way_ == Way::kContiguous) {
    Permuter& packer = makes_trips(way_) ? trips_ : sorter_;
    const Permutation& packing = makes_trips(way_) ? state.by_trip.view() : state.by_slot.view();
    packer.permute(packing, rows.tokens,
                   dense(scratch.packed, packing.row_to_assignment.size, row_bytes), stream);
    sent.rows = dense(scratch.packed, num_sent, row_bytes);
  } else if (makes_trips(way_)) {
    sent.order = {state.trip_tokens.data(), num_sent};
  } else {
    const VectorView<int64_t>& assignments = state.by_slot.view().row_to_assignment;
    for (int64_t i = 0; i < num_sent; ++i) scratch.order[i] = assignments[i] / config.top_k;
    sent.order = {scratch.order, num_sent};
  }
  ReceivedRows received{rows.expert_rows, counts.recv_offsets, {}, {}};
  if (unpacks(way_)) {
    received.rows = dense(scratch.arrived, counts.recv_offsets[communicator_.size()], row_bytes);
  } else {
    received.segments = {state.layout.segments.data(),
                         static_cast<int64_t>(state.layout.segments.size())};
    received.segment_offsets = {state.layout.segment_offsets.data(), communicator_.size() + 1};
  }
  communicator_.start_all_to_all(kDispatch, sent, received, stream);
}

void ExpertExchange::Implementation::arrive_rows(const DispatchRows& rows, std::byte* memory,
                                                 StreamView stream) {
  if (way_ == Way::kLent) return;
  if (way_ == Way::kStaged) return staged_->dispatch(*state_, rows, *staging_, kDispatch);
  communicator_.finish_all_to_all(stream);
  if (!unpacks(way_)) return;
  const AllToAllPlan::State& state = *state_;
  const Scratch scratch = cut(way_, Phase::kDispatch, state, rows.tokens.cols, memory);
  const Permutation& arrivals = state.arrivals.view();
  // Rows past the last expert's are not written, whether the caller has them or not.
  MatrixView<std::byte> expert_rows = rows.expert_rows;
  expert_rows.rows = arrivals.row_to_assignment.size;
  arrivals_.permute(arrivals,
                    dense(scratch.arrived, arrivals.assignment_to_row.rows, rows.tokens.cols),
                    expert_rows, stream);
}

void ExpertExchange::Implementation::finish_dispatch(StreamView stream) {
  if (phase_ != Phase::kDispatch) refuse("finish_dispatch comes without a start_dispatch");
  phase_ = Phase::kIdle;
  end_group_if_failing([&] { arrive_rows(dispatched_, memory_, stream); });
}

// Combine.

void ExpertExchange::Implementation::start_combine(const AllToAllPlan::State& state,
                                                   const CombineRows& rows,
                                                   std::span<std::byte> workspace,
                                                   StreamView stream) {
  const MatrixView<const std::byte> answers = bytes_of(rows.expert_rows);
  const std::string refusal = refusal_of([&] {
    check_state(state);
    nccl::check_combine_rows(rows, state, config.top_k);
    check_workspace(workspace, workspace_bytes(Phase::kCombine, state, answers.cols));
  });
  if (agrees_on_calls()) {
    call_agreement_.make(
        kCombine,
        {{"the number of the plan", state.serial},
         {"hidden_size", rows.expert_rows.cols},
         {"the type of expert_rows", static_cast<int64_t>(rows.expert_rows.dtype)}},
        {answers.row_stride, may_be_lent(answers)}, refusal);
  }
  way_ = agreed_way(kCombine, 1, answers.cols);
  state_ = &state;
  combined_ = rows;
  memory_ = workspace.data();
  end_group_if_failing([&] { send_answers(answers, stream); });
  phase_ = Phase::kCombine;
}

void ExpertExchange::Implementation::send_answers(const MatrixView<const std::byte>& answers,
                                                  StreamView stream) {
  const AllToAllPlan::State& state = *state_;
  const Scratch scratch = cut(way_, Phase::kCombine, state, answers.cols, memory_);
  if (way_ == Way::kLent) {
    // The others only read.
    communicator_.lend(kCombine, answers.rows > 0 ? const_cast<std::byte*>(answers.data) : nullptr,
                       lent_);
    fill_addresses(state, 0, scratch.addresses);
    sorter_.unpermute_from({scratch.addresses, state.num_tokens, config.top_k},
                           combined_.expert_rows.dtype, combined_.gate_weights, combined_.tokens,
                           stream);
    return communicator_.give_back();
  }
  if (way_ == Way::kStaged) return;
  const AllToAllCounts counts = nccl::counts_of(state.layout.sent, state.layout.received).inverse();
  const int64_t num_sent = counts.send_offsets[communicator_.size()];
  SentRows sent{answers, {}, counts.send_offsets};
  if (way_ == Way::kContiguous) {
    MatrixView<const std::byte> expert_rows = answers;
    expert_rows.rows = state.layout.expert_offsets.back();
    departures_.permute(state.departures.view(), expert_rows,
                        dense(scratch.packed, expert_rows.rows, answers.cols), stream);
    sent.rows = dense(scratch.packed, num_sent, answers.cols);
  } else {
    int64_t next = 0;
    for (const RowSegment& segment : state.layout.segments) {
      for (int64_t i = 0; i < segment.num_rows; ++i) {
        scratch.order[next++] = segment.first_row + i;
      }
    }
    sent.order = {scratch.order, num_sent};
  }
  const ReceivedRows received{
      dense(scratch.arrived, counts.recv_offsets[communicator_.size()], answers.cols),
      counts.recv_offsets,
      {},
      {}};
  communicator_.start_all_to_all(kCombine, sent, received, stream);
}

void ExpertExchange::Implementation::finish_combine(StreamView stream) {
  if (phase_ != Phase::kCombine) refuse("finish_combine comes without a start_combine");
  phase_ = Phase::kIdle;
  end_group_if_failing([&] { take_answers(stream); });
}

void ExpertExchange::Implementation::take_answers(StreamView stream) {
  if (way_ == Way::kLent) return;
  if (way_ == Way::kStaged) return staged_->combine(*state_, combined_, *staging_, kCombine);
  communicator_.finish_all_to_all(stream);
  const ConstTensorView& rows = combined_.expert_rows;
  const Scratch scratch =
      cut(way_, Phase::kCombine, *state_, rows.cols * size_of(rows.dtype), memory_);
  const Permutation& sorted = state_->by_slot.view();
  sorter_.unpermute(
      sorted, {scratch.arrived, rows.dtype, sorted.row_to_assignment.size, rows.cols, rows.cols},
      combined_.gate_weights, combined_.tokens, stream);
}

}  // namespace switchyard

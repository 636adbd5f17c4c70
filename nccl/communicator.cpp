// What every transport checks before it moves anything, and what it does when something fails.
#include "switchyard/communicator.h"

#include "nccl/refuse.h"
#include "nccl/staging.h"

namespace switchyard {

using nccl::refuse;
using nccl::text_of;

namespace {

/// @return how many rows the offsets hand out.
int64_t check_offsets(const char* name, VectorView<const int64_t> offsets, int size) {
  if (offsets.size != size + 1) {
    refuse(name, " has ", offsets.size, " elements, must have ", size + 1);
  }
  if (offsets.data == nullptr) refuse(name, " is a null pointer");
  if (offsets[0] != 0) refuse(name, "[0] is ", offsets[0], ", must be 0");
  for (int rank = 0; rank < size; ++rank) {
    if (offsets[rank + 1] < offsets[rank]) {
      refuse(name, "[", rank + 1, "] is ", offsets[rank + 1], ", must be at least the one before, ",
             offsets[rank]);
    }
  }
  return offsets[size];
}

template <typename T>
void check_rows(const char* name, const MatrixView<T>& rows) {
  if (rows.rows < 0 || rows.cols < 0) {
    refuse(name, " is ", rows.rows, " by ", rows.cols, ", must be 0 or more");
  }
  if (rows.row_stride < rows.cols) {
    refuse(name, " has row_stride ", rows.row_stride, ", must be at least its ", rows.cols,
           " columns");
  }
  if (rows.data == nullptr && rows.rows > 0 && rows.cols > 0) refuse(name, " is a null pointer");
}

template <typename T>
void check_dense(const char* name, const MatrixView<T>& rows, const char* transport) {
  if (rows.row_stride == rows.cols || rows.rows < 2) return;
  refuse(name, " has row_stride ", rows.row_stride, ", must be its ", rows.cols,
         " columns: ", transport, " moves contiguous rows only");
}

void check_sent(const SentRows& sent, int size) {
  check_rows("sent.rows", sent.rows);
  const int64_t count = check_offsets("sent.offsets", sent.offsets, size);
  if (sent.order.empty()) {
    if (count > sent.rows.rows) {
      refuse("sent.rows has ", sent.rows.rows, " rows, must have ", count);
    }
    return;
  }
  if (sent.order.size != count) {
    refuse("sent.order has ", sent.order.size, " elements, must have ", count);
  }
  for (int64_t i = 0; i < count; ++i) {
    if (sent.order[i] < 0 || sent.order[i] >= sent.rows.rows) {
      refuse("sent.order[", i, "] is ", sent.order[i], ", must be in [0, ", sent.rows.rows, ")");
    }
  }
}

void check_received(const ReceivedRows& received, int size) {
  check_rows("received.rows", received.rows);
  const int64_t count = check_offsets("received.offsets", received.offsets, size);
  if (received.segments.empty() && received.segment_offsets.empty()) {
    if (count > received.rows.rows) {
      refuse("received.rows has ", received.rows.rows, " rows, must have ", count);
    }
    return;
  }
  const int64_t segments =
      check_offsets("received.segment_offsets", received.segment_offsets, size);
  if (received.segments.size != segments) {
    refuse("received.segments has ", received.segments.size, " elements, must have ", segments);
  }
  for (int rank = 0; rank < size; ++rank) {
    int64_t rows = 0;
    for (int64_t i = received.segment_offsets[rank]; i < received.segment_offsets[rank + 1]; ++i) {
      const auto [first, number] = received.segments[i];
      if (first < 0 || number < 0 || number > received.rows.rows - first) {
        refuse("received.segments[", i, "] holds ", number, " rows from ", first,
               " on, must lie in [0, ", received.rows.rows, ")");
      }
      rows += number;
    }
    const int64_t expected = received.offsets[rank + 1] - received.offsets[rank];
    if (rows != expected) {
      refuse("received.segments of rank ", rank, " hold ", rows, " rows, must hold ", expected);
    }
  }
}

}  // namespace

Communicator::Communicator(int rank, int size, Backend backend, const CommunicatorOptions& options)
    : rank_(rank), size_(size), backend_(backend), options_(options) {
  if (size < 1) refuse("size is ", size, ", must be 1 or more");
  nccl::check_range("rank", rank, 0, size - 1);
  if (options.timeout_ms < 1) {
    refuse("timeout_ms is ", options.timeout_ms, ", must be 1 or more");
  }
  if (options.staging_bytes < 0) {
    refuse("staging_bytes is ", options.staging_bytes, ", must be 0 or more");
  }
}

Communicator::~Communicator() = default;

void Communicator::check_idle(const char* phase) const {
  if (!failure_.empty()) {
    throw CommunicationError(
        text_of("rank ", rank_, ", ", phase, ": the communicator is unusable since ", failure_));
  }
  if (state_ != State::kIdle) {
    refuse(phase, " cannot begin while ", phase_, " is under way");
  }
}

/// A failure of one call is the end of the group.
template <typename Work>
void Communicator::guard(const Work& work) {
  try {
    work();
  } catch (const std::exception& error) {
    abort(error.what());
    throw;
  }
}

void Communicator::all_gather(const char* phase, std::span<const std::byte> mine,
                              std::span<std::byte> all) {
  check_idle(phase);
  if (all.size() != mine.size() * static_cast<std::size_t>(size_)) {
    refuse("all holds ", all.size(), " bytes, must hold ", size_, " times ", mine.size());
  }
  guard([&] { do_all_gather(phase, mine, all); });
}

void Communicator::barrier(const char* phase) { all_gather(phase, {}, {}); }

void Communicator::check_exchange(const SentRows& sent, const ReceivedRows& received) const {
  check_sent(sent, size_);
  check_received(received, size_);
  if (sent.rows.cols != received.rows.cols) {
    refuse("received.rows has ", received.rows.cols, " bytes a row, must have ", sent.rows.cols);
  }
  if (moves_scattered_rows()) return;
  if (!sent.order.empty() || !received.segments.empty()) {
    refuse("sent.order and received.segments must be empty: ", transport(),
           " moves contiguous rows only");
  }
  check_dense("sent.rows", sent.rows, transport());
  check_dense("received.rows", received.rows, transport());
}

void Communicator::start_all_to_all(const char* phase, const SentRows& sent,
                                    const ReceivedRows& received, StreamView stream) {
  check_idle(phase);
  check_exchange(sent, received);
  phase_ = phase;
  sent_ = sent;
  received_ = received;
  guard([&] { do_start(phase_.c_str(), sent_, received_, stream); });
  state_ = State::kExchanging;
}

void Communicator::start_equal_all_to_all(const char* phase,
                                          const MatrixView<const std::byte>& sent,
                                          const MatrixView<std::byte>& received,
                                          int64_t rows_per_rank, StreamView stream) {
  check_idle(phase);
  nccl::check_range("rows_per_rank", rows_per_rank, 0, INT64_MAX / size_);
  equal_offsets_.resize(static_cast<std::size_t>(size_) + 1);
  for (std::size_t rank = 1; rank < equal_offsets_.size(); ++rank) {
    equal_offsets_[rank] = equal_offsets_[rank - 1] + rows_per_rank;
  }
  const VectorView<const int64_t> offsets{equal_offsets_.data(), size_ + 1};
  check_exchange({sent, {}, offsets}, {received, offsets, {}, {}});
  phase_ = phase;
  sent_ = {sent, {}, offsets};
  received_ = {received, offsets, {}, {}};
  guard([&] { do_start_equal(phase_.c_str(), sent_, received_, rows_per_rank, stream); });
  state_ = State::kExchanging;
}

void Communicator::finish_all_to_all(StreamView stream) {
  if (!failure_.empty()) check_idle("finish_all_to_all");
  if (state_ != State::kExchanging) refuse("finish_all_to_all comes without a start_all_to_all");
  guard([&] { do_finish(phase_.c_str(), sent_, received_, stream); });
  state_ = State::kIdle;
}

void Communicator::wait(const char* phase, StreamView stream) {
  if (!failure_.empty()) check_idle(phase);
  if (is_captured(stream)) refuse("stream is being captured, must not be to be waited for");
  guard([&] { do_wait(phase, stream); });
}

std::span<std::byte> Communicator::allocate_shared(const char* phase, int64_t bytes) {
  check_idle(phase);
  nccl::check_range("bytes", bytes, 1, INT64_MAX / 2);
  std::span<std::byte> memory;
  guard([&] { memory = do_allocate_shared(phase, bytes); });
  return memory;
}

void Communicator::lend(const char* phase, std::byte* mine, std::span<std::byte*> all) {
  check_idle(phase);
  if (!can_lend({mine, std::size_t{mine == nullptr ? 0U : 1U}})) {
    refuse("mine is not memory that ", transport(), " ranks share");
  }
  if (all.size() != static_cast<std::size_t>(size_)) {
    refuse("all has ", all.size(), " elements, must have ", size_);
  }
  phase_ = phase;
  guard([&] { do_lend(phase_.c_str(), mine, all); });
  state_ = State::kLending;
}

void Communicator::give_back() {
  if (!failure_.empty()) check_idle("give_back");
  if (state_ != State::kLending) refuse("give_back comes without a lend");
  guard([&] { do_give_back(phase_.c_str()); });
  state_ = State::kIdle;
}

nccl::Staging* Communicator::staging(const char* phase) {
  if (!has_tried_staging_) {
    staging_ = nccl::Staging::make(*this, phase);
    has_tried_staging_ = true;
  }
  return staging_.get();
}

void Communicator::do_start_equal(const char* phase, const SentRows& sent,
                                  const ReceivedRows& received, int64_t, StreamView stream) {
  do_start(phase, sent, received, stream);
}

void Communicator::do_wait(const char*, StreamView stream) { synchronize(backend_, stream); }

std::span<std::byte> Communicator::do_allocate_shared(const char*, int64_t) { return {}; }

void Communicator::do_lend(const char* phase, std::byte*, std::span<std::byte*>) {
  fail(phase, rank_, "this transport shares no memory");
}

void Communicator::do_give_back(const char* phase) {
  fail(phase, rank_, "this transport shares no memory");
}

void Communicator::abort(std::string_view reason) noexcept {
  if (!failure_.empty()) return;
  failure_ = reason.empty() ? "abort" : reason;
  state_ = State::kIdle;
  do_abort(failure_);
}

void Communicator::fail(const char* phase, int peer, const std::string& what) const {
  throw CommunicationError(text_of("rank ", rank_, ", peer ", peer, ", ", phase, ": ", what));
}

void Communicator::fail(const char* phase, const std::string& what) const {
  throw CommunicationError(text_of("rank ", rank_, ", ", phase, ": ", what));
}

}  // namespace switchyard

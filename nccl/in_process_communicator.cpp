// Ranks that are threads of one process: they meet, and each takes its rows from where they lie.
#include "switchyard/in_process_communicator.h"

#include <cstring>

#include "nccl/in_process_group.h"
#include "nccl/refuse.h"
#include "switchyard/buffer.h"

namespace switchyard {

using nccl::InProcessGroup;
using nccl::Post;
using nccl::text_of;

namespace {

const char* name_of(Post::Kind kind) {
  switch (kind) {
    case Post::Kind::kGather:
      return "all_gather";
    case Post::Kind::kExchange:
      return "all_to_all";
    case Post::Kind::kLend:
      return "lend";
    case Post::Kind::kDone:
      return "the end of an exchange";
  }
  return "?";
}

/// Rows [first, first + count) of what a rank sends, to consecutive rows of `to`.
void copy_rows(const SentRows& sent, int64_t first, int64_t count, const MatrixView<std::byte>& to,
               int64_t to_row) {
  const auto row_bytes = static_cast<std::size_t>(to.cols);
  if (count == 0 || row_bytes == 0) return;
  if (sent.order.empty() && sent.rows.row_stride == to.cols && to.row_stride == to.cols) {
    std::memcpy(to.row(to_row), sent.rows.row(first), row_bytes * static_cast<std::size_t>(count));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = sent.order.empty() ? first + i : sent.order[first + i];
    std::memcpy(to.row(to_row + i), sent.rows.row(row), row_bytes);
  }
}

class InProcessCommunicator final : public Communicator {
 public:
  InProcessCommunicator(std::shared_ptr<InProcessGroup> group, int rank,
                        const CommunicatorOptions& options)
      : Communicator(rank, group->size(), Backend::kCpu, options), group_(std::move(group)) {}

  ~InProcessCommunicator() override {
    // What peers take from this rank goes away with it.
    if (is_lending_) InProcessCommunicator::do_abort("rank left amid an exchange");
    group_->leave(rank());
  }

  [[nodiscard]] const char* transport() const override { return "in_process"; }
  [[nodiscard]] bool shares_memory() const override { return true; }
  [[nodiscard]] bool moves_scattered_rows() const override { return true; }

 protected:
  void do_all_gather(const char* phase, std::span<const std::byte> mine,
                     std::span<std::byte> all) override {
    Post& post = group_->next_post(rank());
    post.bytes.assign(mine.begin(), mine.end());
    const uint64_t round = come(phase, Post::Kind::kGather);
    wait(phase, round);
    for (int peer = 0; peer < size(); ++peer) {
      const std::vector<std::byte>& bytes = group_->post(peer, round).bytes;
      if (bytes.size() != mine.size()) {
        fail(phase, peer,
             text_of("gives ", bytes.size(), " bytes to all_gather, expected ", mine.size()));
      }
      if (!bytes.empty()) {
        std::memcpy(all.data() + static_cast<std::size_t>(peer) * mine.size(), bytes.data(),
                    bytes.size());
      }
    }
  }

  void do_start(const char* phase, const SentRows& sent, const ReceivedRows&, StreamView) override {
    group_->next_post(rank()).sent = &sent;
    round_ = come(phase, Post::Kind::kExchange);
    is_lending_ = true;
  }

  void do_finish(const char* phase, const SentRows& sent, const ReceivedRows& received,
                 StreamView) override {
    wait(phase, round_);
    begin_use(phase);
    // From the next rank on, so that not all read from the same one.
    for (int i = 0; i < size(); ++i) take_rows(phase, (rank() + i) % size(), sent, received);
    end_use(phase);
  }

  std::span<std::byte> do_allocate_shared(const char*, int64_t bytes) override {
    return allocations_.emplace_back(bytes).bytes();
  }

  void do_lend(const char* phase, std::byte* mine, std::span<std::byte*> all) override {
    group_->next_post(rank()).address = mine;
    const uint64_t round = come(phase, Post::Kind::kLend);
    is_lending_ = true;
    wait(phase, round);
    for (int peer = 0; peer < size(); ++peer) {
      all[static_cast<std::size_t>(peer)] = group_->post(peer, round).address;
    }
    begin_use(phase);
  }

  void do_give_back(const char* phase) override { end_use(phase); }

  void do_abort(const std::string& reason) noexcept override {
    is_lending_ = false;
    group_->fail(rank(), reason, deadline());
  }

 private:
  [[nodiscard]] InProcessGroup::Clock::time_point deadline() const {
    return InProcessGroup::Clock::now() + std::chrono::milliseconds(options().timeout_ms);
  }

  uint64_t come(const char* phase, Post::Kind kind) {
    Post& post = group_->next_post(rank());
    post.phase = phase;
    post.kind = kind;
    return group_->arrive(rank());
  }

  void wait(const char* phase, uint64_t round) const {
    const nccl::Trouble trouble = group_->wait(rank(), round, deadline());
    if (trouble.peer >= 0) fail(phase, trouble.peer, trouble.what);
    const Post& mine = group_->post(rank(), round);
    for (int peer = 0; peer < size(); ++peer) {
      const Post& theirs = group_->post(peer, round);
      if (theirs.kind != mine.kind || theirs.phase != mine.phase) {
        fail(phase, peer,
             text_of("is at ", name_of(theirs.kind), " of ", theirs.phase, ", expected ",
                     name_of(mine.kind), " of ", mine.phase));
      }
    }
  }

  void begin_use(const char* phase) const {
    const nccl::Trouble trouble = group_->begin_use(rank());
    if (trouble.peer >= 0) fail(phase, trouble.peer, trouble.what);
  }

  void end_use(const char* phase) {
    group_->end_use(rank());
    wait(phase, come(phase, Post::Kind::kDone));
    is_lending_ = false;
  }

  void take_rows(const char* phase, int peer, const SentRows& mine, const ReceivedRows& received) {
    const SentRows& sent = *group_->post(peer, round_).sent;
    int64_t next = sent.offsets[rank()];
    const int64_t count = sent.offsets[rank() + 1] - next;
    const int64_t begin = received.offsets[peer];
    const int64_t expected = received.offsets[peer + 1] - begin;
    if (count != expected) {
      fail(phase, peer, text_of("sends ", count, " rows, expected ", expected));
    }
    if (sent.rows.cols != mine.rows.cols && count > 0) {
      fail(phase, peer,
           text_of("sends rows of ", sent.rows.cols, " bytes, expected ", mine.rows.cols));
    }
    if (received.segment_offsets.empty()) {
      copy_rows(sent, next, count, received.rows, begin);
      return;
    }
    const VectorView<const int64_t>& offsets = received.segment_offsets;
    for (int64_t i = offsets[peer]; i < offsets[peer + 1]; ++i) {
      const RowSegment& segment = received.segments[i];
      copy_rows(sent, next, segment.num_rows, received.rows, segment.first_row);
      next += segment.num_rows;
    }
  }

  std::shared_ptr<InProcessGroup> group_;
  uint64_t round_ = 0;       // of the exchange that has been started
  bool is_lending_ = false;  // peers may use this rank's memory
  std::vector<Buffer<std::byte>> allocations_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_in_process_communicators(
    int size, const CommunicatorOptions& options) {
  constexpr int kMaxSize = 65536;
  nccl::check_range("size", size, 1, kMaxSize);
  const auto group = std::make_shared<InProcessGroup>(size);
  std::vector<std::unique_ptr<Communicator>> ends;
  ends.reserve(static_cast<std::size_t>(size));
  for (int rank = 0; rank < size; ++rank) {
    ends.push_back(std::make_unique<InProcessCommunicator>(group, rank, options));
  }
  return ends;
}

}  // namespace switchyard

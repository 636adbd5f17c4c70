#include "nccl/in_process_group.h"

#include <algorithm>
#include <thread>

#include "nccl/refuse.h"

namespace switchyard::nccl {
namespace {

// Where every rank has a processor, to sleep and be woken costs more: with a tenth of these looks a
// dispatch of 16 tokens takes seven times as long.
constexpr int kLooksBeforeSleep = 40000;

}  // namespace

InProcessGroup::InProcessGroup(int size)
    : members_(static_cast<std::size_t>(size)),
      may_spin_(static_cast<unsigned>(size) <= std::thread::hardware_concurrency()) {}

Post& InProcessGroup::next_post(int rank) {
  Member& member = members_[static_cast<std::size_t>(rank)];
  return member.posts[(member.round + 1) % 2];
}

uint64_t InProcessGroup::arrive(int rank) {
  const std::lock_guard lock(mutex_);
  const uint64_t round = ++members_[static_cast<std::size_t>(rank)].round;
  if (++num_arrived_ == size()) {
    num_arrived_ = 0;
    completed_.store(round, std::memory_order_release);
    changed_.notify_all();
  }
  return round;
}

Trouble InProcessGroup::trouble(int rank, uint64_t round) const {
  if (failed_rank_ >= 0) return {failed_rank_, failure_};
  if (completed_.load(std::memory_order_relaxed) >= round) return {};
  for (int peer = 0; peer < size(); ++peer) {
    const Member& member = members_[static_cast<std::size_t>(peer)];
    if (peer != rank && member.has_left && member.round < round) {
      return {peer, "the rank has left the group"};
    }
  }
  return {};
}

Trouble InProcessGroup::wait(int rank, uint64_t round, Clock::time_point deadline) {
  if (may_spin_) {
    for (int i = 0; i < kLooksBeforeSleep; ++i) {
      if (completed_.load(std::memory_order_acquire) >= round) return {};
    }
  }
  std::unique_lock lock(mutex_);
  Trouble found;
  const auto is_over = [&] {
    if (completed_.load(std::memory_order_relaxed) >= round) return true;
    found = trouble(rank, round);
    return found.peer >= 0;
  };
  if (changed_.wait_until(lock, deadline, is_over)) return found;
  int num_missing = 0;
  for (int peer = size() - 1; peer >= 0; --peer) {
    if (members_[static_cast<std::size_t>(peer)].round >= round) continue;
    found.peer = peer;
    ++num_missing;
  }
  found.what =
      text_of("not there in time; ", size(), " ranks expected, ", size() - num_missing, " came");
  return found;
}

const Post& InProcessGroup::post(int rank, uint64_t round) const {
  return members_[static_cast<std::size_t>(rank)].posts[round % 2];
}

Trouble InProcessGroup::begin_use(int rank) {
  const std::lock_guard lock(mutex_);
  if (failed_rank_ >= 0) return {failed_rank_, failure_};
  members_[static_cast<std::size_t>(rank)].is_using = true;
  return {};
}

void InProcessGroup::end_use(int rank) {
  const std::lock_guard lock(mutex_);
  members_[static_cast<std::size_t>(rank)].is_using = false;
  if (failed_rank_ >= 0) changed_.notify_all();
}

void InProcessGroup::fail(int rank, const std::string& reason, Clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  members_[static_cast<std::size_t>(rank)].is_using = false;
  if (failed_rank_ < 0) {
    failed_rank_ = rank;
    failure_ = reason;
  }
  changed_.notify_all();
  changed_.wait_until(lock, deadline, [this] {
    return std::none_of(members_.begin(), members_.end(),
                        [](const Member& member) { return member.is_using; });
  });
}

void InProcessGroup::leave(int rank) {
  const std::lock_guard lock(mutex_);
  members_[static_cast<std::size_t>(rank)].has_left = true;
  changed_.notify_all();
}

}  // namespace switchyard::nccl

// Where the threads that play ranks meet.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "switchyard/communicator.h"

namespace switchyard::nccl {

/// What a rank brings to a meeting. The memory that it points to stays until the next but one.
struct Post {
  enum class Kind : uint8_t { kGather, kExchange, kLend, kDone };

  Kind kind = Kind::kGather;
  std::string phase;
  std::vector<std::byte> bytes;    ///< kGather
  const SentRows* sent = nullptr;  ///< kExchange
  std::byte* address = nullptr;    ///< kLend
};

/// What is wrong with a meeting.
struct Trouble {
  int peer = -1;  ///< -1: nothing
  std::string what;
};

/// Ranks meet in rounds, one after another. A rank that has come to a round may come to the next
/// only when all have, so two posts a rank are enough.
class InProcessGroup {
 public:
  using Clock = std::chrono::steady_clock;

  explicit InProcessGroup(int size);

  [[nodiscard]] int size() const { return static_cast<int>(members_.size()); }

  /// The post that `rank` fills for its next round.
  Post& next_post(int rank);
  /// @return the round.
  uint64_t arrive(int rank);
  /// Waits until all ranks have come to `round`.
  Trouble wait(int rank, uint64_t round, Clock::time_point deadline);
  /// What `rank` brought; valid until this rank arrives at the next round but one.
  [[nodiscard]] const Post& post(int rank, uint64_t round) const;

  /// From here on this rank uses what others lent, unless the group has failed.
  Trouble begin_use(int rank);
  void end_use(int rank);

  /// Ends every wait; waits, until the deadline, for the others' begin_use() to be ended.
  void fail(int rank, const std::string& reason, Clock::time_point deadline);
  /// `rank` will not come to any further round.
  void leave(int rank);

 private:
  struct Member {
    uint64_t round = 0;  ///< last one that it came to
    bool is_using = false;
    bool has_left = false;
    Post posts[2];
  };

  [[nodiscard]] Trouble trouble(int rank, uint64_t round) const;

  std::vector<Member> members_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int num_arrived_ = 0;
  std::atomic<uint64_t> completed_ = 0;  ///< last round to which all came
  int failed_rank_ = -1;
  std::string failure_;
  bool may_spin_;
};

}  // namespace switchyard::nccl

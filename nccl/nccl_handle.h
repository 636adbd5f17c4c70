// An NCCL communicator, owned or borrowed, whose calls end by a deadline.
#pragma once

#include <nccl.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "switchyard/nccl_communicator.h"

namespace switchyard::nccl {

using Clock = std::chrono::steady_clock;

/// What went wrong, without rank and phase.
class NcclTrouble : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// "2.28.9"
std::string nccl_version_text(int code);
/// @return ncclGetVersion()'s.
/// @throws Unavailable  when it is too old, or of another major version than the header.
int check_nccl_version();

/// NCCL's words for a result, and for the last error where there was one; one line.
std::string text_of_nccl(ncclResult_t result, ncclComm_t comm);

/// Calls `is_done` until it says so, at growing distances.
/// @return false where that took until the deadline.
template <typename IsDone>
bool poll(Clock::time_point deadline, const IsDone& is_done) {
  constexpr int kEagerTurns = 200;
  constexpr std::chrono::microseconds kLongestPause{500};
  std::chrono::microseconds pause{1};
  for (int turn = 0;; ++turn) {
    if (is_done()) return true;
    if (Clock::now() > deadline) return false;
    if (turn < kEagerTurns) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(pause);
      pause = std::min(2 * pause, kLongestPause);
    }
  }
}

class NcclHandle {
 public:
  /// A communicator of our own, not blocking. Waits for the other ranks.
  /// @throws NcclTrouble
  NcclHandle(const NcclUniqueId& id, int rank, int size, std::chrono::milliseconds timeout);
  /// The caller's.
  NcclHandle(ncclComm_t borrowed, std::chrono::milliseconds timeout);
  NcclHandle(const NcclHandle&) = delete;
  NcclHandle& operator=(const NcclHandle&) = delete;
  /// Ends our own together with the other ranks; aborts it where they do not come in time.
  ~NcclHandle();

  [[nodiscard]] ncclComm_t get() const { return comm_; }
  [[nodiscard]] bool is_owned() const { return is_owned_; }
  [[nodiscard]] std::chrono::milliseconds timeout() const { return timeout_; }

  /// To be called with what every call to NCCL returned: waits until what it began is under way.
  /// @throws NcclTrouble  naming the call.
  void check(ncclResult_t result, const char* call) const;
  /// What has failed since.
  /// @throws NcclTrouble
  void check_later_errors() const;
  /// Ends our own; the device goes on without what was under way. The other's is left alone.
  void abort() noexcept;

 private:
  [[nodiscard]] ncclResult_t state() const;
  void settle(const char* call) const;

  ncclComm_t comm_ = nullptr;
  bool is_owned_ = true;
  std::chrono::milliseconds timeout_;
};

}  // namespace switchyard::nccl

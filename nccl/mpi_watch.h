// Waiting for peers: until the clock says it is too late, or a peer's note that it is in vain.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "nccl/mpi_batch.h"
#include "nccl/mpi_notes.h"

namespace switchyard::nccl {

/// What is wrong with a peer; whoever knows the phase makes an error of the library's of it.
class PeerTrouble : public std::runtime_error {
 public:
  PeerTrouble(int peer, const std::string& what) : std::runtime_error(what), peer_(peer) {}
  [[nodiscard]] int peer() const { return peer_; }

 private:
  int peer_;
};

/// @throws PeerTrouble  with MPI's text unless `error` is MPI_SUCCESS.
void check_mpi(int peer, int error);

/// One rank's eye on the others of its group.
class MpiWatch {
 public:
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::milliseconds;

  MpiWatch(MPI_Comm comm, int rank, int size, Milliseconds timeout);

  /// This rank's next call.
  const MpiCall& begin(MpiCall::Kind kind, const char* phase);
  [[nodiscard]] const MpiCall& call() const { return call_; }

  /// Polls until the batch is done.
  /// @throws PeerTrouble, and what `take` throws.
  void wait(MpiBatch& batch, const std::function<void(const MpiCompletion&)>& take);

  /// `peer` is in another call than this rank.
  [[noreturn]] void fail_elsewhere(int peer, const MpiCall& theirs) const;

  /// Tells the peers why the group has failed, unless it was one of them who told.
  void tell_failure(const std::string& reason);
  /// @return whether all peers leave too, so that no message is on its way any more. MPI might
  ///         deliver it to the next communicator otherwise.
  bool say_farewell();
  /// How long the end of a group may take.
  [[nodiscard]] Milliseconds farewell() const;

 private:
  struct Peer {
    bool has_left = false;
    MpiCall call;              ///< last one that it said it waits in
    Clock::time_point told{};  ///< when it said any of this
  };

  void tell_all(const MpiNote& note);
  void look_at_notes();
  void check_gone(const MpiBatch& batch, Clock::time_point begin) const;
  void check_gone(const MpiTransfer& transfer, Clock::time_point begin) const;
  [[noreturn]] void fail_late(const MpiBatch& batch) const;

  MpiNotes notes_;
  int rank_;
  Milliseconds timeout_;
  std::vector<Peer> peers_;
  int64_t polls_before_yield_;
  MpiCall call_;
  Clock::time_point last_wait_{};  // when it ended
  bool any_news_ = false;          // of peers that may be elsewhere
  bool was_told_ = false;          // of the failure, by a peer
};

}  // namespace switchyard::nccl

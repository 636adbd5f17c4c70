#include "nccl/mpi_watch.h"

#include <algorithm>
#include <thread>

#include "nccl/mpi_state.h"
#include "nccl/refuse.h"

namespace switchyard::nccl {
namespace {

using Milliseconds = MpiWatch::Milliseconds;

// Where ranks are more than processors, who polls on keeps others from what he waits for. Where
// they are not, who yields to another program may be gone for several times what an exchange takes.
constexpr int kPollsOfManyRanks = 64;
constexpr int kPollsOfFewRanks = 100'000;
constexpr int kPollsPerLook = 16;  // at notes and the clock
// A rank that was away for longer may have been given up.
constexpr Milliseconds kLongAway{1};
// Until a waiting rank tells its peers where it is.
constexpr Milliseconds kPatience{50};
// For what is on its way from a peer that has gone on.
constexpr Milliseconds kGrace{100};
// For peers that leave too, and for rows that are half moved when the group fails.
constexpr Milliseconds kLongestFarewell{1000};

}  // namespace

void check_mpi(int peer, int error) {
  if (error != MPI_SUCCESS) throw PeerTrouble(peer, "MPI says: " + mpi_error_text(error));
}

MpiWatch::MpiWatch(MPI_Comm comm, int rank, int size, Milliseconds timeout)
    : notes_(comm),
      rank_(rank),
      timeout_(timeout),
      peers_(static_cast<std::size_t>(size)),
      polls_before_yield_(static_cast<unsigned>(size) <= std::thread::hardware_concurrency()
                              ? kPollsOfFewRanks
                              : kPollsOfManyRanks) {}

const MpiCall& MpiWatch::begin(MpiCall::Kind kind, const char* phase) {
  call_ = MpiCall(kind, call_.round + 1, phase);
  return call_;
}

void MpiWatch::wait(MpiBatch& batch, const std::function<void(const MpiCompletion&)>& take) {
  const Clock::time_point begin = Clock::now();
  bool has_told = false;
  if (begin > last_wait_ + kLongAway) look_at_notes();
  for (int64_t polls = 1;; ++polls) {
    for (const MpiCompletion& done : batch.test()) take(done);
    if (batch.is_done()) {
      // A group that has failed works no more, even where all has come without a wait.
      if (polls == 1) look_at_notes();
      last_wait_ = Clock::now();
      return;
    }
    if (polls % kPollsPerLook == 0) {
      look_at_notes();
      if (any_news_) check_gone(batch, begin);
      const Clock::time_point now = Clock::now();
      if (now > begin + timeout_) fail_late(batch);
      if (!has_told && now > begin + kPatience) {
        has_told = true;
        for (const MpiTransfer& transfer : batch.pending()) {
          notes_.send(transfer.peer, MpiNote(MpiNote::Kind::kWaiting, call_));
        }
      }
    }
    if (polls > polls_before_yield_) std::this_thread::yield();
  }
}

void MpiWatch::look_at_notes() {
  int sender = 0;
  MpiNote note;
  while (notes_.take(sender, note)) {
    Peer& peer = peers_[static_cast<std::size_t>(sender)];
    peer.told = Clock::now();
    any_news_ = true;
    switch (note.kind) {
      case MpiNote::Kind::kFailed:
        was_told_ = true;
        throw PeerTrouble(sender, note.text);
      case MpiNote::Kind::kLeaving:
        peer.has_left = true;
        break;
      case MpiNote::Kind::kWaiting:
        peer.call = note.call;
        // It waits for what this rank has done before: it shall know that nothing more comes.
        if (note.call.round < call_.round) {
          notes_.send(sender, MpiNote(MpiNote::Kind::kWaiting, call_));
        }
        break;
    }
  }
}

void MpiWatch::check_gone(const MpiBatch& batch, Clock::time_point begin) const {
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    // Whatever it waits for, it is the wrong thing.
    const MpiCall& theirs = peers_[i].call;
    if (theirs.round == call_.round && !theirs.is_same(call_)) {
      fail_elsewhere(static_cast<int>(i), theirs);
    }
  }
  for (const MpiTransfer& transfer : batch.pending()) check_gone(transfer, begin);
}

/// A peer that has left or gone on owes nothing, or never gives it.
void MpiWatch::check_gone(const MpiTransfer& transfer, Clock::time_point begin) const {
  const Peer& peer = peers_[static_cast<std::size_t>(transfer.peer)];
  if (!peer.has_left && peer.call.round <= call_.round) return;
  if (Clock::now() < std::max(peer.told, begin) + kGrace) return;
  if (peer.has_left) throw PeerTrouble(transfer.peer, "the rank has left the group");
  if (transfer.kind == MpiTransfer::Kind::kRows) {
    throw PeerTrouble(transfer.peer, text_of("sends 0 rows, expected ", transfer.num_rows));
  }
  if (transfer.kind == MpiTransfer::Kind::kSendRows) {
    throw PeerTrouble(transfer.peer,
                      text_of("does not expect the ", transfer.num_rows, " rows sent to it"));
  }
  fail_elsewhere(transfer.peer, peer.call);
}

void MpiWatch::fail_elsewhere(int peer, const MpiCall& theirs) const {
  throw PeerTrouble(peer, text_of("is at ", theirs.text(), ", expected ", call_.text()));
}

void MpiWatch::fail_late(const MpiBatch& batch) const {
  std::vector<MpiTransfer> pending = batch.pending();
  // A peer that does not come is the more to blame than one that does not take.
  std::stable_partition(pending.begin(), pending.end(),
                        [](const MpiTransfer& transfer) { return transfer.is_receive(); });
  const MpiTransfer& first = pending.front();
  switch (first.kind) {
    case MpiTransfer::Kind::kGatherHeader:
      throw PeerTrouble(first.peer,
                        text_of("not there in time; ", peers_.size(), " ranks expected, ",
                                peers_.size() - pending.size(), " came"));
    case MpiTransfer::Kind::kRows:
      throw PeerTrouble(first.peer,
                        text_of("not there in time; ", first.num_rows, " rows expected"));
    case MpiTransfer::Kind::kSendRows:
      throw PeerTrouble(first.peer,
                        text_of("does not take the ", first.num_rows, " rows sent to it in time"));
    default:
      throw PeerTrouble(first.peer, "is not done with all_gather in time");
  }
}

void MpiWatch::tell_all(const MpiNote& note) {
  const int size = static_cast<int>(peers_.size());
  for (int i = 1; i < size; ++i) notes_.send((rank_ + i) % size, note);
}

void MpiWatch::tell_failure(const std::string& reason) {
  if (!was_told_) tell_all(MpiNote(MpiNote::Kind::kFailed, call_, reason));
}

bool MpiWatch::say_farewell() {
  tell_all(MpiNote(MpiNote::Kind::kLeaving, call_));
  peers_[static_cast<std::size_t>(rank_)].has_left = true;
  const Clock::time_point deadline = Clock::now() + farewell();
  int sender = 0;
  MpiNote note;
  while (
      !std::all_of(peers_.begin(), peers_.end(), [](const Peer& peer) { return peer.has_left; })) {
    if (notes_.take(sender, note)) {
      if (note.kind == MpiNote::Kind::kFailed) {
        note_mpi_failure();
        return false;
      }
      bool& has_left = peers_[static_cast<std::size_t>(sender)].has_left;
      has_left = has_left || note.kind == MpiNote::Kind::kLeaving;
    } else if (Clock::now() > deadline) {
      return false;
    } else {
      std::this_thread::yield();
    }
  }
  return true;
}

MpiWatch::Milliseconds MpiWatch::farewell() const {
  return std::min(kLongestFarewell, timeout_ / 4);
}

}  // namespace switchyard::nccl

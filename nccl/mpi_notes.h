// Short notes between ranks, beside the data: why one failed, that it leaves, where it waits.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "nccl/mpi_header.h"

namespace switchyard::nccl {

/// A call that every rank makes.
struct MpiCall {
  enum class Kind : int32_t { kGather, kExchange };

  static constexpr std::size_t kMaxPhase = 80;

  Kind kind = Kind::kGather;
  int64_t round = 0;           ///< how many calls came before
  uint64_t phase_hash = 0;     ///< of the whole phase
  char phase[kMaxPhase] = "";  ///< as much as fits

  MpiCall() = default;
  MpiCall(Kind call_kind, int64_t call_round, std::string_view call_phase);
  [[nodiscard]] bool is_same(const MpiCall& other) const;
  /// "all_gather of plan".
  [[nodiscard]] std::string text() const;
};

struct MpiNote {
  enum class Kind : int32_t {
    kFailed,   ///< the sender's group has failed, for the reason in `text`
    kLeaving,  ///< the sender makes no further calls
    kWaiting,  ///< the sender waits for the receiver, in `call`
  };

  static constexpr std::size_t kMaxText = 400;

  Kind kind = Kind::kFailed;
  MpiCall call;
  char text[kMaxText] = "";

  MpiNote() = default;
  MpiNote(Kind note_kind, const MpiCall& note_call, std::string_view note_text = {});
};

/// The notes of one group. Nothing here waits, and errors are of no interest: a note that does not
/// arrive leaves the peer to its deadline.
class MpiNotes {
 public:
  explicit MpiNotes(MPI_Comm comm) : comm_(comm) {}
  ~MpiNotes();
  MpiNotes(const MpiNotes&) = delete;
  MpiNotes& operator=(const MpiNotes&) = delete;

  void send(int peer, const MpiNote& note);
  /// The next one that is here.
  /// @return false  for none.
  bool take(int& peer, MpiNote& note);

 private:
  struct Sent {
    MPI_Request request;
    std::unique_ptr<MpiNote> note;
  };

  MPI_Comm comm_;
  std::vector<Sent> sent_;
};

}  // namespace switchyard::nccl

#include "nccl/mpi_notes.h"

#include <algorithm>

#include "nccl/fingerprint.h"
#include "nccl/mpi_tags.h"

namespace switchyard::nccl {
namespace {

/// As much as fits, ended by a zero.
template <std::size_t kSize>
void copy_text(char (&to)[kSize], std::string_view from) {
  std::copy_n(from.begin(), std::min(from.size(), kSize - 1), to);
}

}  // namespace

MpiCall::MpiCall(Kind call_kind, int64_t call_round, std::string_view call_phase)
    : kind(call_kind), round(call_round) {
  Fingerprint fingerprint;
  fingerprint.add_all(call_phase);
  phase_hash = fingerprint.value();
  copy_text(phase, call_phase);
}

bool MpiCall::is_same(const MpiCall& other) const {
  return kind == other.kind && round == other.round && phase_hash == other.phase_hash;
}

std::string MpiCall::text() const {
  return std::string(kind == Kind::kGather ? "all_gather of " : "all_to_all of ") + phase;
}

MpiNote::MpiNote(Kind note_kind, const MpiCall& note_call, std::string_view note_text)
    : kind(note_kind), call(note_call) {
  copy_text(text, note_text);
}

MpiNotes::~MpiNotes() {
  for (Sent& sent : sent_) {
    int is_done = 0;
    MPI_Test(&sent.request, &is_done, MPI_STATUS_IGNORE);
    // MPI may read it as long as the process lives.
    if (is_done == 0) static_cast<void>(sent.note.release());
  }
}

void MpiNotes::send(int peer, const MpiNote& note) {
  std::erase_if(sent_, [](Sent& sent) {
    int is_done = 0;
    MPI_Test(&sent.request, &is_done, MPI_STATUS_IGNORE);
    return is_done != 0;
  });
  sent_.push_back({MPI_REQUEST_NULL, std::make_unique<MpiNote>(note)});
  Sent& sent = sent_.back();
  if (MPI_Isend(sent.note.get(), sizeof(MpiNote), MPI_BYTE, peer, kNoteTag, comm_, &sent.request) !=
      MPI_SUCCESS) {
    sent_.pop_back();
  }
}

bool MpiNotes::take(int& peer, MpiNote& note) {
  int is_here = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  if (MPI_Improbe(MPI_ANY_SOURCE, kNoteTag, comm_, &is_here, &message, &status) != MPI_SUCCESS ||
      is_here == 0) {
    return false;
  }
  // So short that it has come whole with what was probed.
  if (MPI_Mrecv(&note, sizeof(note), MPI_BYTE, &message, &status) != MPI_SUCCESS) return false;
  peer = status.MPI_SOURCE;
  return true;
}

}  // namespace switchyard::nccl

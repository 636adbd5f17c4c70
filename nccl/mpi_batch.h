// Requests to MPI that are under way together, and what each is for.
#pragma once

#include <cstdint>
#include <vector>

#include "nccl/mpi_header.h"

namespace switchyard::nccl {

/// What a request moves.
struct MpiTransfer {
  enum class Kind : uint8_t { kSendGather, kSendRows, kGatherHeader, kGatherRest, kRows };

  Kind kind = Kind::kSendGather;
  int peer = 0;
  int64_t num_rows = 0;  ///< kSendRows, kRows

  [[nodiscard]] bool is_receive() const {
    return kind != Kind::kSendGather && kind != Kind::kSendRows;
  }
};

/// A completed request.
struct MpiCompletion {
  MpiTransfer transfer;
  MPI_Status status;
  int error = MPI_SUCCESS;
};

class MpiBatch {
 public:
  void add(MPI_Request request, const MpiTransfer& transfer);
  [[nodiscard]] bool is_done() const { return num_pending_ == 0; }
  void clear();
  /// What has been completed since the last call, in no order; valid until the next call.
  const std::vector<MpiCompletion>& test();
  /// What is not, in the order of add().
  [[nodiscard]] std::vector<MpiTransfer> pending() const;
  /// Of receives only: MPI has no use for sends that are taken back.
  void cancel_receives();

 private:
  std::vector<MPI_Request> requests_;
  std::vector<MpiTransfer> transfers_;
  std::vector<int> indices_;
  std::vector<MPI_Status> statuses_;
  std::vector<MpiCompletion> completions_;
  std::size_t num_pending_ = 0;
};

}  // namespace switchyard::nccl

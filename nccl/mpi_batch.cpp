#include "nccl/mpi_batch.h"

namespace switchyard::nccl {

void MpiBatch::add(MPI_Request request, const MpiTransfer& transfer) {
  requests_.push_back(request);
  transfers_.push_back(transfer);
  ++num_pending_;
}

void MpiBatch::clear() {
  requests_.clear();
  transfers_.clear();
  num_pending_ = 0;
}

const std::vector<MpiCompletion>& MpiBatch::test() {
  completions_.clear();
  indices_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int count = 0;
  const int code = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                                indices_.data(), statuses_.data());
  if (count == MPI_UNDEFINED) num_pending_ = 0;  // nothing was left
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    // The statuses hold errors only when the call says so.
    const int error = code == MPI_ERR_IN_STATUS ? statuses_[at].MPI_ERROR : code;
    completions_.push_back(
        {transfers_[static_cast<std::size_t>(indices_[at])], statuses_[at], error});
    --num_pending_;
  }
  return completions_;
}

std::vector<MpiTransfer> MpiBatch::pending() const {
  std::vector<MpiTransfer> left;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] != MPI_REQUEST_NULL) left.push_back(transfers_[i]);
  }
  return left;
}

void MpiBatch::cancel_receives() {
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] != MPI_REQUEST_NULL && transfers_[i].is_receive()) MPI_Cancel(&requests_[i]);
  }
}

}  // namespace switchyard::nccl

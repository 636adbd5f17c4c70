// Ranks that are processes of an MPI job. In a library of its own, switchyard::mpi.
#pragma once

#include <memory>

#include "switchyard/communicator.h"

namespace switchyard {

/// Starts MPI where the program has not, and ends what it started; for main(). Threads may use MPI
/// one at a time.
///
/// After a communicator has failed, MPI is ended only when all processes come to that soon: else it
/// would wait for those that are gone.
class MpiRuntime {
 public:
  /// @throws Unavailable  when MPI cannot be started, or has been ended before.
  MpiRuntime();
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

  /// Among all processes of the job.
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }

 private:
  bool has_started_ = false;
  int rank_ = 0;
  int size_ = 1;
};

/// Whether a launcher such as mpirun started this process.
bool is_launched_by_mpi();

/// This process's end of a group on host memory. Every rank of the MPI communicator calls this.
///
/// Errors name the peer, and its phase where it is elsewhere. A rank that ends its end while others
/// still call fails the group for them; the last call's ends are destroyed by all ranks at about
/// the same time, or their MPI resources stay taken until the process ends.
///
/// @param fortran_handle  MPI_Comm_c2f() of the ranks' communicator, which is duplicated.
/// @throws InvalidArgument     for a handle that is no intracommunicator, or refused options.
/// @throws Unavailable         before MPI is started, after it is ended, or when the MPI library is
///                             older than the header that this was compiled with.
/// @throws CommunicationError  when not all ranks come in time.
std::unique_ptr<Communicator> make_mpi_communicator(int fortran_handle,
                                                    const CommunicatorOptions& options = {});

/// The same for all processes of the job.
std::unique_ptr<Communicator> make_mpi_world_communicator(const CommunicatorOptions& options = {});

}  // namespace switchyard

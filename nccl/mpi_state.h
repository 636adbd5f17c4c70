// What the MPI transport asks of MPI as a whole.
#pragma once

#include <string>

#include "nccl/mpi_header.h"
#include "switchyard/communicator.h"

namespace switchyard::nccl {

/// MPI's own text of an error code.
std::string mpi_error_text(int code);

/// Between MPI_Init and MPI_Finalize.
bool is_mpi_running();

/// @throws Unavailable  when the library that runs, of this version of the standard, is older than
///                      the header.
void check_mpi_version(int major, int minor);

/// @throws Unavailable  before MPI is started, after it is ended, or where it is too old.
void check_mpi_running();

/// A communicator of the group's own, on which errors come back as codes.
/// @throws CommunicationError  when not all ranks come in time.
MPI_Comm duplicate_group(MPI_Comm comm, int rank, const CommunicatorOptions& options);

/// From here on this process does not wait long for others in MPI_Finalize.
void note_mpi_failure() noexcept;

}  // namespace switchyard::nccl

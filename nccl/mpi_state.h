// What the MPI transport asks of MPI as a whole.
#pragma once

#include <string>

namespace switchyard::nccl {

/// MPI's own text of an error code.
std::string mpi_error_text(int code);

/// Between MPI_Init and MPI_Finalize.
bool is_mpi_running();

/// @throws Unavailable  when the library that runs, of this version of the standard, is older than
///                      the header.
void check_mpi_version(int major, int minor);

/// From here on this process does not wait long for others in MPI_Finalize.
void note_mpi_failure() noexcept;

}  // namespace switchyard::nccl

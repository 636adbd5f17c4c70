// The transports' libraries that this build knows, for `switchyard info`.
#pragma once

#include <string>

namespace switchyard::nccl {

/// Version of the NCCL headers, empty without NCCL.
std::string nccl_version();

/// Version of the MPI standard, empty without MPI.
std::string mpi_version();

}  // namespace switchyard::nccl

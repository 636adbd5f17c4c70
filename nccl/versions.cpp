#include "nccl/versions.h"

#ifdef SWITCHYARD_NCCL
#include <nccl.h>
#endif
#ifdef SWITCHYARD_MPI
#include "nccl/mpi_header.h"
#endif

namespace switchyard::nccl {

std::string nccl_version() {
#ifdef SWITCHYARD_NCCL
  return std::to_string(NCCL_MAJOR) + "." + std::to_string(NCCL_MINOR) + "." +
         std::to_string(NCCL_PATCH);
#else
  return {};
#endif
}

std::string mpi_version() {
#ifdef SWITCHYARD_MPI
  return std::to_string(MPI_VERSION) + "." + std::to_string(MPI_SUBVERSION);
#else
  return {};
#endif
}

}  // namespace switchyard::nccl

// Links the MPI transport without knowing MPI's header.
#include <cstdio>

#include "switchyard/errors.h"
#include "switchyard/mpi_communicator.h"

int main() {
  std::printf(switchyard::is_launched_by_mpi() ? "launched by MPI; " : "not launched by MPI; ");
  try {
    switchyard::make_mpi_world_communicator();
  } catch (const switchyard::Unavailable& error) {
    std::printf("%s\n", error.what());
  }
}

// Links the NCCL transport without knowing NCCL's header.
#include <cstdio>

#include "switchyard/errors.h"
#include "switchyard/nccl_communicator.h"

int main() {
  try {
    switchyard::make_nccl_communicator(switchyard::NcclUniqueId{}, 0, 0);
  } catch (const switchyard::Error& error) {
    std::printf("%s\n", error.what());
  }
}

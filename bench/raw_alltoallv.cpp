#include "bench/raw_alltoallv.h"

#include <climits>

#include "nccl/mpi_header.h"
#include "switchyard/errors.h"

namespace switchyard::bench {

std::function<void()> raw_alltoallv(const std::byte* from, std::byte* to, int64_t block_bytes,
                                    int size) {
  if (block_bytes * size > INT_MAX) return {};
  std::vector<int> counts(static_cast<std::size_t>(size), static_cast<int>(block_bytes));
  std::vector<int> offsets(counts.size());
  for (std::size_t i = 1; i < offsets.size(); ++i) offsets[i] = offsets[i - 1] + counts[i - 1];
  return [from, to, counts, offsets] {
    if (MPI_Alltoallv(from, counts.data(), offsets.data(), MPI_BYTE, to, counts.data(),
                      offsets.data(), MPI_BYTE, MPI_COMM_WORLD) != MPI_SUCCESS) {
      throw CommunicationError("MPI_Alltoallv failed");
    }
  };
}

}  // namespace switchyard::bench

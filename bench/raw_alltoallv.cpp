#include "bench/raw_alltoallv.h"

#include <algorithm>
#include <climits>
#include <numeric>
#include <optional>
#include <vector>

#include "nccl/mpi_header.h"
#include "switchyard/errors.h"

namespace switchyard::bench {

namespace {

/// Bytes, where they fit the ints that MPI counts in.
std::optional<std::vector<int>> bytes_of(VectorView<const int64_t> rows, int64_t row_bytes) {
  std::vector<int> bytes;
  for (int64_t i = 0; i < rows.size; ++i) {
    if (rows[i] > INT_MAX / std::max<int64_t>(1, row_bytes)) return std::nullopt;
    bytes.push_back(static_cast<int>(rows[i] * row_bytes));
  }
  return bytes;
}

}  // namespace

std::function<void()> raw_alltoallv(const std::byte* from, std::byte* to,
                                    const AllToAllCounts& counts, int64_t row_bytes) {
  const auto send_counts = bytes_of(counts.send_counts, row_bytes);
  const auto send_offsets = bytes_of(counts.send_offsets, row_bytes);
  const auto recv_counts = bytes_of(counts.recv_counts, row_bytes);
  const auto recv_offsets = bytes_of(counts.recv_offsets, row_bytes);
  if (!send_counts || !send_offsets || !recv_counts || !recv_offsets) return {};
  return [from, to, send = *send_counts, send_at = *send_offsets, recv = *recv_counts,
          recv_at = *recv_offsets] {
    if (MPI_Alltoallv(from, send.data(), send_at.data(), MPI_BYTE, to, recv.data(), recv_at.data(),
                      MPI_BYTE, MPI_COMM_WORLD) != MPI_SUCCESS) {
      throw CommunicationError("MPI_Alltoallv failed");
    }
  };
}

std::function<void()> raw_alltoallv(const std::byte* from, std::byte* to, int64_t block_bytes,
                                    int size) {
  const std::vector<int64_t> counts(static_cast<std::size_t>(size), 1);
  std::vector<int64_t> offsets(counts.size() + 1);
  std::iota(offsets.begin(), offsets.end(), 0);
  const VectorView<const int64_t> count_view(counts.data(), size);
  const VectorView<const int64_t> offset_view(offsets.data(), size + 1);
  return raw_alltoallv(from, to, {count_view, offset_view, count_view, offset_view}, block_bytes);
}

}  // namespace switchyard::bench

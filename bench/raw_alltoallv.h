// MPI's own call, to hold the library's against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

#include "switchyard/all_to_all_plan.h"

namespace switchyard::bench {

/// A call of MPI_Alltoallv among all processes that moves `block_bytes` between each two.
/// @return nothing  where its counts do not fit an int.
std::function<void()> raw_alltoallv(const std::byte* from, std::byte* to, int64_t block_bytes,
                                    int size);

/// The same for rows that lie by receiving rank, and are to lie by sending rank.
std::function<void()> raw_alltoallv(const std::byte* from, std::byte* to,
                                    const AllToAllCounts& counts, int64_t row_bytes);

}  // namespace switchyard::bench

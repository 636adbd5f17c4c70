// MPI's own call, to hold the library's against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace switchyard::bench {

/// A call of MPI_Alltoallv among all processes that moves `block_bytes` between each two.
/// @return nothing  where its counts do not fit an int.
std::function<void()> raw_alltoallv(const std::byte* from, std::byte* to, int64_t block_bytes,
                                    int size);

}  // namespace switchyard::bench

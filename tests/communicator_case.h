// What every transport must do with rows, as one rank of a group sees it.
#pragma once

#include <cstdint>

#include "switchyard/communicator.h"

namespace switchyard::test {

/// How many rows a rank sends to another.
using RowCount = int64_t (*)(int source, int destination);

/// Exchanges rows of `row_bytes` bytes whose contents say where they come from, and expects what
/// every rank got byte by byte, and, where rows may have gaps, the gaps as they were.
/// @param scattered  rows are picked from all over and put all over, for transports that can.
void check_all_to_all(Communicator& communicator, RowCount count, int64_t row_bytes,
                      bool scattered);

/// The same with as many rows for every rank, by the entry for this.
void check_equal_all_to_all(Communicator& communicator, int64_t rows_per_rank, int64_t row_bytes);

/// Gathers `bytes` of every rank and expects them in order.
void check_all_gather(Communicator& communicator, int64_t bytes);

}  // namespace switchyard::test

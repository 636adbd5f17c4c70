// What every transport must do with rows, as one rank of a group sees it.
#pragma once

#include <cstdint>

#include "switchyard/communicator.h"

namespace switchyard::test {

/// How many rows a rank sends to another.
using RowCount = int64_t (*)(int source, int destination);

/// Exchanges rows of `row_bytes` bytes whose contents say where they come from, and expects what
/// every rank got byte by byte, and the memory between rows as it was.
/// @param scattered  rows are picked from all over and put all over, for transports that can.
void check_all_to_all(Communicator& communicator, RowCount count, int64_t row_bytes,
                      bool scattered);

/// Gathers `bytes` of every rank and expects them in order.
void check_all_gather(Communicator& communicator, int64_t bytes);

}  // namespace switchyard::test

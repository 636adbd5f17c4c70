// Copies each token's row to the rows of its assignments.
#pragma once

#include "cpu/assignment_rows.h"
#include "cpu/threads.h"
#include "switchyard/permutation.h"

namespace switchyard::cpu {

/// Permuter::permute() with checked shapes.
struct PermuteArgs {
  const Permutation& permutation;
  MatrixView<const std::byte> tokens;
  MatrixView<std::byte> sorted;
};
void permute_rows(const ThreadTeam& team, const PermuteArgs& args);

/// Permuter::permute_to() with checked shapes.
void permute_rows_to(const ThreadTeam& team, MatrixView<const std::byte> tokens,
                     const AddressedRows<std::byte>& rows);

}  // namespace switchyard::cpu

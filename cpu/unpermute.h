// Combines the rows of each token's assignments into one row.
#pragma once

#include "cpu/assignment_rows.h"
#include "cpu/threads.h"
#include "switchyard/data_type.h"

namespace switchyard::cpu {

template <class Rows>
struct UnpermuteArgs {
  Rows rows;
  DataType dtype;                ///< of the rows' elements
  ConstTensorView gate_weights;  ///< null data: every weight is 1
  TensorView tokens;
};

/// Permuter::unpermute() with checked shapes.
void unpermute_rows(const ThreadTeam& team, const UnpermuteArgs<SortedRows<const std::byte>>& args);

/// Permuter::unpermute_from() with checked shapes.
void unpermute_rows_from(const ThreadTeam& team,
                         const UnpermuteArgs<AddressedRows<const std::byte>>& args);

}  // namespace switchyard::cpu

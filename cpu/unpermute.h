// Combines the rows of each token's assignments into one row.
#pragma once

#include "cpu/threads.h"
#include "switchyard/data_type.h"

namespace switchyard::cpu {

/// Permuter::unpermute() with checked shapes.
struct UnpermuteArgs {
  MatrixView<const int64_t> assignment_to_row;
  ConstTensorView sorted;
  ConstTensorView gate_weights;  ///< null data: every weight is 1
  TensorView tokens;
};
void unpermute_rows(const ThreadTeam& team, const UnpermuteArgs& args);

}  // namespace switchyard::cpu

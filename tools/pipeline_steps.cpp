#include "tools/pipeline_steps.h"

#include <sstream>

#include "switchyard/errors.h"
#include "tools/stand_in_experts.h"

namespace switchyard::tools {

void expect_dense(int32_t layer, int64_t first_token, ConstTensorView tokens,
                  MatrixView<const int32_t> expert_ids, MatrixView<const float> gate_weights,
                  ConstTensorView combined) {
  const Mismatch mismatch = compare_with_dense(tokens, expert_ids, gate_weights, combined);
  if (mismatch.token < 0) return;
  std::ostringstream message;
  message.precision(9);
  message << "verification failed: layer " << layer << ", token " << first_token + mismatch.token
          << ", column " << mismatch.column << " is " << mismatch.actual << ", must be "
          << mismatch.expected;
  throw Error(message.str());
}

}  // namespace switchyard::tools

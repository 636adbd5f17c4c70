// Routing in plain, good C++ without intrinsics: what the library is measured against.
#pragma once

#include <cstdint>

#include "switchyard/data_type.h"
#include "switchyard/router.h"

namespace switchyard::bench {

/// Routes dense rows one at a time: an insertion scan against the k-th best so far, exponentials of
/// the winners only where that suffices, loops that the compiler vectorises. top_k up to 64, at
/// most 2048 experts. Softmax, or another score with or without bias and groups of kMax or
/// kTop2Sum. Its exponential is a free choice, a polynomial of degree 5; NaN ranks as -inf.
///
/// @param bias          [num_experts] or null.
/// @param expert_ids    [num_tokens, top_k], dense.
/// @param gate_weights  the same shape.
void plain_route(const RouterConfig& config, ConstTensorView logits, const float* bias,
                 int32_t* expert_ids, float* gate_weights);

}  // namespace switchyard::bench

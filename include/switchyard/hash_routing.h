// Hash routing: the token's id in the vocabulary decides its experts (Roller et al. 2021, arXiv
// 2106.04426); the first layers of some models use a table of them.
#pragma once

#include <cstdint>

#include "switchyard/data_type.h"
#include "switchyard/router.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// Fills a table for route_by_hash(): `top_k` distinct experts for every token id, spread evenly by
/// a hash of (seed, token id, slot). The same table on every machine.
///
/// @param table  [vocabulary_size, top_k], top_k at most num_experts.
/// @throws InvalidArgument  when the shape is refused.
void fill_hash_table(int32_t num_experts, uint64_t seed, MatrixView<int32_t> table);

/// Gives every token the experts that `table` lists for its id.
///
/// With logits, weights are those of Router for these experts: `config`'s score function,
/// renormalisation and scale; a non-finite logit weighs 0. Without, every weight is 1 / top_k
/// (renormalised) or 1, times the scale. Groups are ignored. A token id of -1 marks padding: ids
/// -1, weights 0.
///
/// @param token_ids  [num_tokens], each -1 or in [0, table.rows).
/// @param table      [vocabulary_size, top_k] of ids in [0, num_experts).
/// @param logits     [num_tokens, num_experts] or empty.
/// @param result     as for Router; loss_sums must be empty.
/// @throws InvalidArgument  when a shape disagrees, or an id is out of range (host backends);
/// nothing
///                          is written then.
/// Never allocates.
void route_by_hash(const RouterConfig& config, VectorView<const int32_t> token_ids,
                   MatrixView<const int32_t> table, ConstTensorView logits,
                   const RoutingResult& result, Backend backend = Backend::kAuto,
                   StreamView stream = {});

}  // namespace switchyard

// Hash routing: the token's id in the vocabulary decides its experts (Roller et al. 2021, arXiv
// 2106.04426); the first layers of some models use a table of them.
#pragma once

#include <cstdint>

#include "switchyard/data_type.h"
#include "switchyard/executor.h"
#include "switchyard/router.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// Fills a table for route_by_hash(): `top_k` distinct experts for every token id, each set and
/// order equally likely, by a hash of (seed, token id, slot). The same table on every machine.
///
/// @param num_experts  1 to 2048.
/// @param table        [vocabulary_size, top_k], top_k from 1 to min(64, num_experts).
/// @throws InvalidArgument  when the shape is refused, naming the argument and both numbers.
void fill_hash_table(int32_t num_experts, uint64_t seed, MatrixView<int32_t> table);

/// Gives every token the experts that `table` lists for its id.
///
/// With logits, weights are those of Router for these experts: `config`'s score function,
/// renormalisation and scale; a non-finite logit weighs 0 and is in no sum. Sums fold over the
/// slots in the table's order. Without, every weight is 1 / top_k (renormalised) or 1, times the
/// scale. Groups are ignored. A token id of -1 marks padding: ids -1, weights 0.
///
/// @param token_ids  [num_tokens], each -1 or in [0, table.rows).
/// @param table      [vocabulary_size, top_k] of ids in [0, num_experts), distinct within a row.
/// @param logits     [num_tokens, num_experts], or default-constructed: none.
/// @param result     as for Router, but loss_sums must be empty and num_degenerate_rows counts the
///                   tokens of whose listed experts none has a finite logit.
/// @throws InvalidArgument  when a shape disagrees, or an id that is used is out of range or
/// repeated
///                          (host backends); nothing is written then.
/// Never allocates. The same bits on every backend, instruction set and thread count.
void route_by_hash(const RouterConfig& config, VectorView<const int32_t> token_ids,
                   MatrixView<const int32_t> table, ConstTensorView logits,
                   const RoutingResult& result, Backend backend = Backend::kAuto,
                   CpuThreads threads = {}, StreamView stream = {});

}  // namespace switchyard

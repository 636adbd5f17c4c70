// Hash routing: the token's id in the vocabulary decides its experts (Roller et al. 2021, arXiv
// 2106.04426); the first layers of some models use a table of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "switchyard/data_type.h"
#include "switchyard/executor.h"
#include "switchyard/router.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// Fills a table for HashRouter: `top_k` distinct experts for every token id, each set and
/// order equally likely, by a hash of (seed, token id, slot). The same table on every machine.
///
/// @param num_experts  1 to 2048.
/// @param table        [vocabulary_size, top_k], top_k from 1 to min(64, num_experts).
/// @throws InvalidArgument  when the shape is refused, naming the argument and both numbers.
void fill_hash_table(int32_t num_experts, uint64_t seed, MatrixView<int32_t> table);

/// One batch. All memory is in the backend's space and is only read.
struct HashRoutingInputs {
  VectorView<const int32_t> token_ids;  ///< [num_tokens], each -1 (padding) or in [0, table.rows)
  MatrixView<const int32_t> table;      ///< [vocabulary_size, top_k] of ids in [0, num_experts),
                                        ///< distinct within a row
  ConstTensorView logits{};             ///< [num_tokens, num_experts], or as it is here: none
};

/// Gives every token the experts that a table lists for its id. Thread-safe: `route` may run
/// concurrently on distinct outputs and workspaces.
///
/// With logits, weights are those of Router for these experts: the config's score function,
/// renormalisation and scale; a non-finite logit weighs 0 and is in no sum. Sums fold over the
/// slots in the table's order. Without, every weight is 1 / top_k (renormalised) or 1, times the
/// scale. Groups are ignored. A token id of -1 marks padding: ids -1, weights 0. The same bits on
/// every backend, instruction set and thread count.
///
/// Ids are data. Host backends refuse a batch that uses one out of range or a table row with a
/// repeated expert. A device cannot throw and follows no such id out of its table or row:
///   - a token id outside [-1, table.rows) counts as -1;
///   - a listed expert outside [0, num_experts) gives id -1 at weight 0, counts nowhere, and is to
///     the other slots what one with a non-finite logit is;
///   - a repeated expert is weighed and counted in each of its slots.
class HashRouter {
 public:
  /// @throws InvalidArgument  when `config` is refused by validate().
  /// @throws Unavailable      when this build or machine lacks `backend`.
  explicit HashRouter(const RouterConfig& config, Backend backend = Backend::kAuto,
                      CpuThreads threads = {});
  ~HashRouter();
  HashRouter(HashRouter&&) noexcept;
  HashRouter& operator=(HashRouter&&) noexcept;

  [[nodiscard]] const RouterConfig& config() const;
  /// The backend in use, never kAuto.
  [[nodiscard]] Backend backend() const;

  /// Bytes of workspace, in the backend's memory, that route() needs for up to `max_tokens` tokens.
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const;

  /// @param result  as for Router, but loss_sums must be empty and num_degenerate_rows counts the
  ///                tokens of whose listed experts none has a finite logit; 0 without logits.
  /// @throws InvalidArgument  when a shape disagrees with the config or with another argument,
  ///                          naming the argument and both numbers; host backends: when an id that
  ///                          is used is out of range or repeated; kCuda: when an argument is
  ///                          memory that kernels cannot follow or is not aligned to its elements,
  ///                          or the stream belongs to another device. Nothing is written then.
  /// @throws CudaError        when a launch fails, naming it. After an error that cannot be undone
  ///                          the object says so and refuses every later call.
  /// Neither allocates nor synchronises, so a CUDA graph can capture it. T = 0 is legal.
  void route(const HashRoutingInputs& inputs, const RoutingResult& result,
             std::span<std::byte> workspace = {}, StreamView stream = {}) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard

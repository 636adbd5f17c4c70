// Expert choice routing: experts pick tokens (Zhou et al. 2022, arXiv 2202.09368).
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

/// What the softmax of expert choice is taken over.
enum class ExpertChoiceScore : uint8_t {
  kSoftmaxOverExperts,  ///< each token's row, as in the paper
  kSoftmaxOverTokens,   ///< each expert's column; ranked by the logits, which have its order
};

struct ExpertChoiceConfig {
  int32_t num_experts = 0;       ///< 1 to 2048
  double capacity_factor = 1.0;  ///< mean experts a token; finite and above 0
  int64_t fixed_capacity = 0;    ///< tokens an expert takes; 0: from capacity_factor
  ExpertChoiceScore score = ExpertChoiceScore::kSoftmaxOverExperts;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const ExpertChoiceConfig& config);

/// Tokens that each expert takes: fixed_capacity, or max(1, floor(factor * T / E)), at most T.
/// @throws InvalidArgument  when `config` is refused or `num_tokens` is below 0.
int64_t expert_choice_capacity(const ExpertChoiceConfig& config, int64_t num_tokens);

/// One batch. All memory is in the backend's space and is only read.
struct ExpertChoiceInputs {
  ConstTensorView logits;  ///< [num_tokens, num_experts], any DataType; fewer than 2^31 tokens
  VectorView<const uint8_t> token_mask{};  ///< [num_tokens] or empty; 0: padding, not chosen
};

/// Caller-owned memory in the backend's space, written whole, best first.
struct ExpertChoiceResult {
  MatrixView<int32_t> token_ids;   ///< [num_experts, expert_choice_capacity()]; -1: nobody
  MatrixView<float> gate_weights;  ///< the same shape: the scores of the chosen tokens
};

/// Lets every expert choose its best tokens. Thread-safe: `route` may run concurrently on distinct
/// outputs and workspaces.
///
/// Higher score first, equal scores by the lower token; a non-finite logit scores 0 and ranks below
/// every finite one, by the lower token. Masked tokens are chosen by nobody and are in no sum:
/// where fewer than `capacity` tokens are left, the rest of the expert's row is -1 at weight 0. The
/// sums of the softmax fold as in Router, over all E experts or all T tokens; exponentials that
/// would be subnormal count as 0. The same bits on every backend and thread count.
class ExpertChoiceRouter {
 public:
  /// @throws InvalidArgument  when `config` is refused by validate().
  /// @throws Unavailable      when this build or machine lacks `backend`.
  explicit ExpertChoiceRouter(const ExpertChoiceConfig& config, Backend backend = Backend::kAuto,
                              CpuThreads threads = {});
  ~ExpertChoiceRouter();
  ExpertChoiceRouter(ExpertChoiceRouter&&) noexcept;
  ExpertChoiceRouter& operator=(ExpertChoiceRouter&&) noexcept;

  [[nodiscard]] const ExpertChoiceConfig& config() const;
  /// The backend in use, never kAuto.
  [[nodiscard]] Backend backend() const;

  /// Bytes of workspace, in the backend's memory, that route() needs for up to `max_tokens` tokens.
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const;

  /// @throws InvalidArgument  when a shape disagrees with the config or with another argument,
  ///                          naming the argument and both numbers; kCuda: when an argument is
  ///                          memory that kernels cannot follow or is not aligned to its elements,
  ///                          the workspace is not aligned to 16 bytes, or the stream belongs to
  ///                          another device. Nothing is written then.
  /// @throws CudaError        when a launch fails, naming it. After an error that cannot be undone
  ///                          the object says so and refuses every later call.
  /// Neither allocates nor synchronises, so a CUDA graph can capture it. T = 0 is legal.
  void route(const ExpertChoiceInputs& inputs, const ExpertChoiceResult& result,
             std::span<std::byte> workspace, StreamView stream = {}) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard

// Routing: which experts each token visits, and how much each answer counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "switchyard/backend.h"
#include "switchyard/data_type.h"
#include "switchyard/executor.h"
#include "switchyard/residency_preference.h"
#include "switchyard/stream.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

inline constexpr int32_t kMaxExperts = 2048;
inline constexpr int32_t kMaxTopK = 64;
inline constexpr int32_t kMaxSharedExperts = 64;

/// What turns a logit into a score.
enum class ScoreFunction : uint8_t {
  kSoftmax,       ///< softmax over the row
  kSigmoid,       ///< 1 / (1 + e^-x)
  kSqrtSoftplus,  ///< sqrt(log(1 + e^x))
  kIdentity,      ///< the logit itself
};

/// What makes a group of experts good, from the selection scores of its members.
enum class GroupScore : uint8_t {
  kMax,      ///< the best member
  kTop2Sum,  ///< the sum of the two best members
  kTopKSum,  ///< the sum of the top_k / top_groups best members
};

/// How one layer of a model routes.
struct RouterConfig {
  int32_t num_experts = 0;  ///< routed experts, 1 to 2048
  int32_t top_k = 0;        ///< experts a token, 1 to min(64, num_experts)
  ScoreFunction score_function = ScoreFunction::kSoftmax;
  bool renormalize = true;             ///< divide by the sum of the chosen weights
  float routed_scaling_factor = 1.0f;  ///< multiplies every routed weight; finite and above 0
  int32_t num_groups = 1;  ///< group g holds experts [g * E / G, (g + 1) * E / G); divides E
  int32_t top_groups = 1;  ///< groups kept for each token; they hold at least top_k experts
  GroupScore group_score = GroupScore::kMax;
  int32_t num_shared_experts = 0;     ///< appended to every token as ids E, E + 1, …; 0 to 64
  float shared_expert_weight = 1.0f;  ///< their weight, finite; not scaled, not renormalised

  /// Columns of the result: top_k + num_shared_experts.
  [[nodiscard]] constexpr int32_t num_slots() const { return top_k + num_shared_experts; }
  /// Ids in the result are below this: num_experts + num_shared_experts.
  [[nodiscard]] constexpr int32_t num_expert_ids() const {
    return num_experts + num_shared_experts;
  }
  bool operator==(const RouterConfig&) const = default;
};

/// @throws InvalidArgument  naming the field, its value and the limit.
void validate(const RouterConfig& config);

/// One batch. All memory is in the backend's space and is only read.
struct RoutingInputs {
  ConstTensorView logits;                    ///< [num_tokens, num_experts], any DataType
  VectorView<const float> selection_bias{};  ///< [num_experts] or empty; changes the choice only
  VectorView<const uint8_t> token_mask{};    ///< [num_tokens] or empty; 0: padding, not routed
  VectorView<const uint8_t> expert_mask{};   ///< [num_experts] or empty; 0: never chosen while
                                             ///< enough enabled experts exist
  ResidencyPreference residency{};           ///< of experts in fast memory
};

/// Caller-owned memory in the backend's space, written whole. Ids and weights are always wanted;
/// of the rest, what is left empty is not computed.
struct RoutingResult {
  MatrixView<int32_t>
      expert_ids;           ///< [num_tokens, num_slots], best first, then shared; -1: padding
  TensorView gate_weights;  ///< [num_tokens, num_slots], float32 or bfloat16
  VectorView<int64_t> tokens_per_expert{};  ///< [num_expert_ids] or empty
  int64_t* num_degenerate_rows = nullptr;   ///< unmasked rows without a finite enabled logit
  VectorView<int64_t> loss_sums{};          ///< [router_loss_sums_size(num_experts)] or empty; see
                                            ///< router_losses.h
  VectorView<float> sacrificed_mass{};      ///< [num_tokens] or empty; what residency cost: the
                                            ///< sum of the losses, 0 or more, as probability
                                            ///< (other functions than softmax: as score)
};

/// Routes batches under one configuration. Thread-safe: `route` may run concurrently on distinct
/// outputs and workspaces.
///
/// For every token: finite scores rank above all others, higher selection scores first, equal ones
/// (-0 equals +0) by the lower id. Softmax without a bias or summed group scores selects on the
/// logits themselves; everything else selects on score + bias in float32. A logit that is NaN or
/// infinite, or whose selection score is not finite, is never ranked; when fewer than top_k experts
/// are left, the lowest ids not yet chosen (enabled ones before masked ones) fill the row at weight
/// 0. Weights come from the scores without bias:
///
///   softmax, renormalised      e^(x_j - max) / sum over the chosen
///   softmax                    e^(x_j - max) / sum over the finite, enabled experts of the row
///   others, renormalised       s_j / sum over the chosen (0 where that sum is 0 or not finite)
///   others                     s_j
///
/// times routed_scaling_factor. Of equal groups the lower one stays; a group's sum is clamped to
/// finite values, and one that is NaN counts as the least. Every sum folds the upper half of its
/// terms onto the lower half, from the next power of two down. `expert_ids` and `gate_weights` are
/// the same bits on every backend, instruction set, thread count, stride and position in the batch.
///
/// Sources: Shazeer et al. 2017 (arXiv 1701.06538); groups and bias: DeepSeek-V3 (arXiv
/// 2412.19437).
class Router {
 public:
  /// @throws InvalidArgument  when `config` is refused by validate().
  /// @throws Unavailable      when this build or machine lacks `backend`.
  explicit Router(const RouterConfig& config, Backend backend = Backend::kAuto,
                  CpuThreads threads = {});
  ~Router();
  Router(Router&&) noexcept;
  Router& operator=(Router&&) noexcept;

  [[nodiscard]] const RouterConfig& config() const;
  /// The backend in use, never kAuto.
  [[nodiscard]] Backend backend() const;

  /// Bytes of workspace, in the backend's memory, that route() needs for up to `max_tokens` tokens.
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const;

  /// @throws InvalidArgument  when a shape disagrees with the config or with another argument,
  ///                          naming the argument and both numbers; kCuda: when an argument is
  ///                          memory that kernels cannot follow or is not aligned to its elements,
  ///                          or the stream belongs to another device. Nothing is written then.
  /// @throws CudaError        when a launch fails, naming it. After an error that cannot be undone
  ///                          the object says so and refuses every later call.
  /// Neither allocates nor synchronises, so a CUDA graph can capture it. T = 0 is legal.
  void route(const RoutingInputs& inputs, const RoutingResult& result,
             std::span<std::byte> workspace = {}, StreamView stream = {}) const;

  class Implementation;

 private:
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace switchyard

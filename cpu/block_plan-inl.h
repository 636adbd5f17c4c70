// How blocks of rows are routed under a configuration.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_PLAN_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_PLAN_INL_H_
#undef SWITCHYARD_CPU_BLOCK_PLAN_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_PLAN_INL_H_
#endif

#include <optional>

#include "cpu/block_groups-inl.h"
#include "cpu/block_plan.h"
#include "cpu/block_threshold-inl.h"
#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

// The greatest top_k of a method: loops over choices are written out that often.
constexpr size_t MostChoices(BlockMethod method) {
  switch (method) {
    case BlockMethod::kPairs1:
      return 1;
    case BlockMethod::kPairs2:
      return 2;
    case BlockMethod::kLanes4:
    case BlockMethod::kThreshold4:
      return 4;
    case BlockMethod::kLanes8:
    case BlockMethod::kThreshold8:
      return 8;
    case BlockMethod::kThreshold12:
      return 12;
    default:
      return 16;
  }
}

// Above this many experts lanes do not pay, even for one or two choices.
constexpr size_t kMaxLaneScores = 128;
static_assert(kMaxLaneScores <= kMaxPairScores);
// The same for longer lists, whose cost grows with every expert.
constexpr size_t kMaxLaneListScores = HWY_CAP_GE512 ? 64 : kMaxLaneScores;

inline BlockMethod MethodFor(size_t choice_size, size_t top_k) {
  if (choice_size <= kMaxLaneScores) {
    if (top_k == 1) return BlockMethod::kPairs1;
    if (top_k == 2) return BlockMethod::kPairs2;
  }
  if (choice_size <= kMaxLaneListScores) {
    if (top_k <= 4) return BlockMethod::kLanes4;
    if (top_k <= 8) return BlockMethod::kLanes8;
  }
  if (top_k <= 4) return BlockMethod::kThreshold4;
  if (top_k <= 8) return BlockMethod::kThreshold8;
  if (choice_size % 32 != 0) return BlockMethod::kNone;
  if (top_k <= 12) return BlockMethod::kThreshold12;
  if (top_k <= 16) return BlockMethod::kThreshold16;
  return BlockMethod::kNone;
}

// Whether blocks of a method are compiled for this very number of choices, which is faster by up to
// a third. Only those are read in place; other numbers, which models seldom use, come by scratch
// rows.
constexpr bool IsCompiledFor(BlockMethod method, int32_t top_k) {
  switch (method) {
    case BlockMethod::kPairs1:
    case BlockMethod::kPairs2:
    case BlockMethod::kLanes4:
    case BlockMethod::kThreshold4:
      return top_k == static_cast<int32_t>(MostChoices(method));
    case BlockMethod::kLanes8:
    case BlockMethod::kThreshold8:
      return top_k == 6 || top_k == 8;
    case BlockMethod::kThreshold12:
      return top_k == 10;
    default:
      return false;
  }
}

// Rows of the caller's must come in multiples of this to be read in place.
inline size_t InPlaceUnit(BlockMethod method, size_t num_experts, DataType dtype) {
  switch (method) {
    case BlockMethod::kLanes4:
    case BlockMethod::kLanes8:
      return dtype == DataType::kFloat32 || num_experts > 8 ? 4 : 8;
    case BlockMethod::kThreshold4:
    case BlockMethod::kThreshold8:
      return 16;
    case BlockMethod::kThreshold12:
    case BlockMethod::kThreshold16:
      return 32;
    default:
      return dtype == DataType::kFloat32 ? 4 : 8;
  }
}

inline bool ReadsInPlace(const RouterConfig& config, DataType dtype, const BlockPlan& plan) {
  if (!plan.on_logits || plan.limits_groups) return false;
  if (!IsCompiledFor(plan.method, config.top_k)) return false;
  if (dtype == DataType::kFloat16) return false;
  const auto num_experts = static_cast<size_t>(config.num_experts);
  const bool denominators =
      config.renormalize || num_experts % kRowPadding == 0 || num_experts <= kMaxLaneDenominators;
  return denominators && num_experts % InPlaceUnit(plan.method, num_experts, dtype) == 0;
}

// Without its kernel. `in_place` is the type of logits that may be read in place, if any.
inline BlockPlan MakeBlockPlan(const RouterConfig& config, bool has_bias,
                               std::optional<DataType> in_place) {
  const auto num_experts = static_cast<size_t>(config.num_experts);
  BlockPlan plan;
  plan.on_logits = selects_on_logits(config, has_bias);
  plan.limits_groups = config.num_groups != config.top_groups;
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  // Selecting on probabilities is rare, and the smallest rows are not worth a block.
  if ((softmax && !plan.on_logits) || num_experts < 4) return plan;

  // Scratch rows suit every method: those with 32 columns want multiples of 32.
  plan.row_size = num_experts <= kRowPadding ? kRowPadding : (num_experts + 31) / 32 * 32;
  plan.choice_size = plan.row_size;
  if (plan.limits_groups && VectorsScoreGroups(config)) {
    plan.compacts = true;
    plan.groups = MakeGroupLayout(config);
    plan.choice_size = (plan.groups.top_groups * plan.groups.padded_size + 31) / 32 * 32;
  }
  if (HWY_MAX(plan.row_size, plan.choice_size) > kMaxBlockScores) return plan;
  plan.method = MethodFor(plan.choice_size, static_cast<size_t>(config.top_k));
  plan.in_place = in_place.has_value() && ReadsInPlace(config, *in_place, plan);
  if (plan.in_place) plan.row_size = plan.choice_size = num_experts;
  return plan;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

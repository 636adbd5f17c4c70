// The scores that decide a block's choice, in scratch rows.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_SCORES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_SCORES_INL_H_
#undef SWITCHYARD_CPU_BLOCK_SCORES_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_SCORES_INL_H_
#endif

#include <cmath>
#include <cstring>

#include "cpu/block_choice-inl.h"
#include "cpu/block_groups-inl.h"
#include "cpu/block_plan-inl.h"
#include "cpu/row_groups-inl.h"
#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// No logit or bias of a usual row is greater in magnitude: exponentials stay normal, and sums
// finite.
constexpr float kModest = -numerics::ExpConstants::kLowestNormal;

// What is added to scores before the choice.
struct SelectionBias {
  HWY_ALIGN float values[kMaxBlockScores];  // padded with zeros
  bool is_modest = true;

  void fill(const float* bias, size_t num_experts) {
    for (size_t i = 0; i < PaddedSize(num_experts); ++i) {
      values[i] = bias != nullptr && i < num_experts ? bias[i] : 0.0f;
      is_modest &= std::fabs(values[i]) <= kModest;
    }
  }
};

// Memory of one thread for one block after another.
struct BlockScratch {
  HWY_ALIGN float scores[kLanes * kMaxBlockScores];
  HWY_ALIGN float limited[kLanes * kMaxBlockScores];  // to the best groups
  SelectionBias bias;
  HWY_ALIGN int32_t to_expert[kLanes * kLanes];  // see CompactRow()
  bool expects_positive = true;                  // see ChooseByLanes()
};

// The score of logits that are modest in magnitude; other lanes hold garbage.
HWY_INLINE FloatVec ScoreModest(ScoreFunction function, FloatVec logit) {
  const FloatTag d;
  switch (function) {
    case ScoreFunction::kSigmoid:
      return SigmoidModest(d, logit);
    case ScoreFunction::kSqrtSoftplus:
      return SqrtSoftplusModest(d, logit);
    case ScoreFunction::kSoftmax:
    case ScoreFunction::kIdentity:
      break;
  }
  return hn::Add(logit, hn::Zero(d));
}

// Scores plus bias of `row` into `out`. False where a logit is not modest: then `out` is not right.
template <ScoreFunction kFunction, typename T>
HWY_INLINE bool ScoreModestVectors(const T* HWY_RESTRICT row, const float* HWY_RESTRICT bias,
                                   size_t size, float* HWY_RESTRICT out) {
  const FloatTag d;
  const IntTag di;
  IntVec greatest = hn::Zero(di);  // as integers, for so NaN is the greatest of all
  for (size_t i = 0; i < size; i += kLanes) {
    const FloatVec logit = LoadWidened(row + i);
    greatest = hn::Max(greatest, hn::BitCast(di, hn::Abs(logit)));
    hn::Store(hn::Add(ScoreModest(kFunction, logit), hn::Load(d, bias + i)), d, out + i);
  }
  return hn::AllFalse(di, hn::Gt(greatest, hn::BitCast(di, hn::Set(d, kModest))));
}

// The same for any row, -inf where a logit or its selection score is not finite.
template <ScoreFunction kFunction, typename T>
HWY_INLINE void ScoreAnyVectors(const T* HWY_RESTRICT row, const float* HWY_RESTRICT bias,
                                size_t size, float* HWY_RESTRICT out) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  for (size_t i = 0; i < size; i += kLanes) {
    const FloatVec logit = LoadWidened(row + i);
    const FloatVec score = hn::Add(Score<false>(kFunction, logit), hn::Load(d, bias + i));
    // Zero times a logit is NaN unless the logit is finite, and so one test covers both.
    const FloatVec selection = FusedMulAdd(d, logit, hn::Zero(d), score);
    hn::Store(hn::IfThenElse(IsFiniteMask(selection), selection, lowest), d, out + i);
  }
}

template <ScoreFunction kFunction, typename T>
HWY_INLINE void ScoreVectors(const T* row, const SelectionBias& bias, size_t size, float* out) {
  const bool usual = bias.is_modest && ScoreModestVectors<kFunction>(row, bias.values, size, out);
  if (HWY_UNLIKELY(!usual)) ScoreAnyVectors<kFunction>(row, bias.values, size, out);
}

template <typename T>
HWY_NOINLINE void ScoreVectors(ScoreFunction function, const T* row, const SelectionBias& bias,
                               size_t size, float* out) {
  switch (function) {
    case ScoreFunction::kSigmoid:
      return ScoreVectors<ScoreFunction::kSigmoid>(row, bias, size, out);
    case ScoreFunction::kSqrtSoftplus:
      return ScoreVectors<ScoreFunction::kSqrtSoftplus>(row, bias, size, out);
    case ScoreFunction::kSoftmax:
    case ScoreFunction::kIdentity:
      return ScoreVectors<ScoreFunction::kIdentity>(row, bias, size, out);
  }
}

// Fills one scratch row.
HWY_INLINE void FillScratchRow(const RouteTask& task, const BlockPlan& plan, int64_t token,
                               const SelectionBias& bias, float* HWY_RESTRICT row) {
  const auto num_experts = static_cast<size_t>(task.config.num_experts);
  const size_t padded = PaddedSize(num_experts);
  for (size_t i = padded; i < plan.row_size; ++i) row[i] = kMinusInfinity;
  if (plan.on_logits) {
    WidenRow(task, token, row);
    if (plan.limits_groups) CleanRow(row, padded);
    return;
  }
  const ScoreFunction function = task.config.score_function;
  if (num_experts == padded && task.expert_mask == nullptr) {
    if (task.logits.dtype == DataType::kFloat32) {
      return ScoreVectors(function, task.logits.as<float>().row(token), bias, padded, row);
    }
    if (task.logits.dtype == DataType::kBFloat16) {
      return ScoreVectors(function, task.logits.as<BFloat16>().row(token), bias, padded, row);
    }
  }
  HWY_ALIGN float widened[kMaxBlockScores];
  WidenRow(task, token, widened);
  ScoreVectors(function, widened, bias, padded, row);
}

// Copies every scratch row to `scratch.limited`, limited to its best groups.
HWY_INLINE void LimitBlockGroups(const RouteTask& task, const BlockPlan& plan,
                                 BlockScratch& scratch) {
  if (!plan.compacts) {
    for (size_t row = 0; row < kLanes; ++row) {
      float* const limited = scratch.limited + row * plan.row_size;
      std::memcpy(limited, scratch.scores + row * plan.row_size, plan.row_size * sizeof(float));
      LimitToBestGroups(task.config, limited);
    }
    return;
  }
  HWY_ALIGN float scores[kLanes * kLanes];
  HWY_ALIGN int32_t masks[kLanes];
  for (size_t row = 0; row < kLanes; ++row) {
    hn::Store(GroupScores(plan.groups, scratch.scores + row * plan.row_size), FloatTag(),
              scores + row * kLanes);
  }
  KeepBestGroups(plan.groups, scores, masks);
  const size_t used = plan.groups.top_groups * plan.groups.padded_size;
  for (size_t row = 0; row < kLanes; ++row) {
    float* const to = scratch.limited + row * plan.choice_size;
    CompactRow(plan.groups, row, static_cast<uint32_t>(masks[row]),
               scratch.scores + row * plan.row_size, to, scratch.to_expert);
    for (size_t i = used; i < plan.choice_size; ++i) to[i] = kMinusInfinity;
  }
}

// Positions in compacted rows become experts.
HWY_INLINE void ExpertsFromPositions(const BlockPlan& plan, const int32_t* HWY_RESTRICT to_expert,
                                     size_t top_k, BlockChoice& choice) {
  const IntTag di;
  for (size_t j = 0; j < top_k; ++j) {
    const IntVec position = choice.positions[j];
    IntVec offset = hn::Load(di, to_expert);
    for (size_t s = 1; s < plan.groups.top_groups; ++s) {
      const IntVec before = hn::Set(di, static_cast<int32_t>(s * plan.groups.padded_size) - 1);
      offset =
          hn::IfThenElse(hn::Gt(position, before), hn::Load(di, to_expert + s * kLanes), offset);
    }
    choice.positions[j] = hn::Add(position, offset);
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

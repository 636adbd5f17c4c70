// Routes blocks of kLanes rows at once, and hands over what that does not cover.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_ROUTER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_ROUTER_INL_H_
#undef SWITCHYARD_CPU_BLOCK_ROUTER_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_ROUTER_INL_H_
#endif

#include "cpu/block_choice-inl.h"
#include "cpu/block_groups-inl.h"
#include "cpu/block_threshold-inl.h"
#include "cpu/block_weights-inl.h"
#include "cpu/row_groups-inl.h"
#include "cpu/row_inputs-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

enum class BlockMethod { kNone, kPairs1, kPairs2, kLanes4, kLanes8, kThreshold8, kThreshold16 };

// What is the same for every block of a range.
struct BlockPlan {
  BlockMethod method = BlockMethod::kNone;
  bool on_logits = false;     // scores are logits
  bool in_place = false;      // scores are the caller's float32 rows
  bool limits_groups = false;
  bool compacts = false;      // limits groups by compacting rows
  GroupLayout groups{};
  size_t row_size = 0;        // floats of a scratch row
  size_t choice_size = 0;     // scores of a row to choose from
};

constexpr size_t kMaxLaneScores = 128;

inline BlockMethod MethodFor(size_t choice_size, size_t top_k) {
  if (choice_size <= kMaxLaneScores) {
    if (top_k == 1) return BlockMethod::kPairs1;
    if (top_k == 2) return BlockMethod::kPairs2;
  }
  const size_t lane_limit = HWY_CAP_GE512 ? 64 : kMaxLaneScores;
  if (choice_size <= lane_limit) {
    if (top_k <= 4) return BlockMethod::kLanes4;
    if (top_k <= 8) return BlockMethod::kLanes8;
  }
  if (top_k <= 8) return BlockMethod::kThreshold8;
  if (top_k <= 16 && choice_size % 32 == 0) return BlockMethod::kThreshold16;
  return BlockMethod::kNone;
}

inline BlockPlan MakeBlockPlan(const RouteTask& task) {
  const RouterConfig& config = task.config;
  const auto num_experts = static_cast<size_t>(config.num_experts);
  BlockPlan plan;
  plan.on_logits = selects_on_logits(task);
  plan.limits_groups = config.num_groups != config.top_groups;
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  // Selecting on probabilities is rare, and rows of one score are not worth a block.
  if ((softmax && !plan.on_logits) || num_experts < 4) return plan;

  // Rows of thresholds over 32 columns come in multiples of 32.
  plan.row_size = (num_experts + 31) / 32 * 32;
  if (num_experts <= kRowPadding) plan.row_size = kRowPadding;
  plan.choice_size = plan.row_size;
  if (plan.limits_groups && BlocksLimitGroups(config)) {
    plan.compacts = true;
    plan.groups.num_groups = static_cast<size_t>(config.num_groups);
    plan.groups.top_groups = static_cast<size_t>(config.top_groups);
    plan.groups.group_size = num_experts / plan.groups.num_groups;
    plan.groups.padded_size = PaddedSize(plan.groups.group_size);
    plan.groups.terms = static_cast<size_t>(group_terms(config));
    plan.choice_size = (plan.groups.top_groups * plan.groups.padded_size + 31) / 32 * 32;
  }
  if (HWY_MAX(plan.row_size, plan.choice_size) > kMaxBlockScores) return plan;
  plan.method = MethodFor(plan.choice_size, static_cast<size_t>(config.top_k));

  const bool threshold =
      plan.method == BlockMethod::kThreshold8 || plan.method == BlockMethod::kThreshold16;
  const size_t unit = plan.method == BlockMethod::kThreshold16 ? 32 : threshold ? 16 : 4;
  plan.in_place = plan.on_logits && !plan.limits_groups && task.expert_mask == nullptr &&
                  task.logits.dtype == DataType::kFloat32 && num_experts % unit == 0 &&
                  (config.renormalize || num_experts % kRowPadding == 0 || num_experts <= 64) &&
                  task.logits.row_stride < INT32_MAX / static_cast<int64_t>(kLanes);
  if (plan.in_place) plan.row_size = plan.choice_size = num_experts;
  return plan;
}

// Scores of a widened row in place: -inf where a logit or its selection score is not finite.
template <bool kNormal>
HWY_INLINE float ScoreInPlace(const RouteTask& task, const float* HWY_RESTRICT bias, size_t padded,
                              float* HWY_RESTRICT row) {
  const FloatTag d;
  const FloatVec lowest = hn::Set(d, kMinusInfinity);
  FloatVec least = hn::Zero(d);
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec logit = hn::Load(d, row + i);
    const auto finite = IsFiniteMask(logit);
    least = hn::Min(least, hn::IfThenElseZero(finite, logit));
    const FloatVec score = Score<kNormal>(task.config.score_function, logit);
    const FloatVec selection = hn::Add(score, hn::Load(d, bias + i));
    const auto ranked = hn::And(finite, IsFiniteMask(selection));
    hn::Store(hn::IfThenElse(ranked, selection, lowest), d, row + i);
  }
  return -GreatestLane(hn::Neg(least));
}

// Fills one scratch row with the scores that decide the choice.
HWY_INLINE void FillScratchRow(const RouteTask& task, const BlockPlan& plan, int64_t token,
                               const float* HWY_RESTRICT bias, float* HWY_RESTRICT row) {
  const size_t padded = PaddedSize(static_cast<size_t>(task.config.num_experts));
  WidenRow(task, token, row);
  for (size_t i = padded; i < plan.row_size; ++i) row[i] = kMinusInfinity;
  if (plan.on_logits) {
    if (plan.limits_groups) CleanRow(row, padded);
    return;
  }
  if (ScoreInPlace<true>(task, bias, padded, row) < numerics::ExpConstants::kLowestNormal) {
    WidenRow(task, token, row);
    ScoreInPlace<false>(task, bias, padded, row);
  }
}

template <BlockMethod kMethod>
HWY_INLINE void ChooseBlock(const BlockScores& block, size_t top_k, BlockChoice& choice) {
  if constexpr (kMethod == BlockMethod::kPairs1) {
    ChooseByPairs<1>(block, choice);
  } else if constexpr (kMethod == BlockMethod::kPairs2) {
    ChooseByPairs<2>(block, choice);
  } else if constexpr (kMethod == BlockMethod::kLanes4) {
    ChooseByLanes<4>(block, top_k, choice);
  } else if constexpr (kMethod == BlockMethod::kLanes8) {
    ChooseByLanes<8>(block, top_k, choice);
  } else if constexpr (kMethod == BlockMethod::kThreshold8) {
    ChooseByThreshold<8>(block, top_k, choice);
  } else {
    ChooseByThreshold<16>(block, top_k, choice);
  }
}

// Copies every scratch row to `compact`, limited to its best groups.
HWY_INLINE void LimitBlockGroups(const RouteTask& task, const BlockPlan& plan,
                                 const float* HWY_RESTRICT scratch, float* HWY_RESTRICT compact,
                                 int32_t* HWY_RESTRICT to_expert) {
  if (!plan.compacts) {
    for (size_t row = 0; row < kLanes; ++row) {
      float* const limited = compact + row * plan.row_size;
      std::memcpy(limited, scratch + row * plan.row_size, plan.row_size * sizeof(float));
      LimitToBestGroups(task.config, limited);
    }
    return;
  }
  HWY_ALIGN float scores[kLanes * kLanes];
  HWY_ALIGN int32_t masks[kLanes];
  for (size_t row = 0; row < kLanes; ++row) {
    hn::Store(GroupScores(plan.groups, scratch + row * plan.row_size), FloatTag(),
              scores + row * kLanes);
  }
  KeepBestGroups(plan.groups, scores, masks);
  const size_t used = plan.groups.top_groups * plan.groups.padded_size;
  for (size_t row = 0; row < kLanes; ++row) {
    float* to = compact + row * plan.choice_size;
    CompactRow(plan.groups, row, static_cast<uint32_t>(masks[row]),
               scratch + row * plan.row_size, to, to_expert);
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
      const auto before = hn::Set(di, static_cast<int32_t>(s * plan.groups.padded_size) - 1);
      offset = hn::IfThenElse(hn::Gt(position, before), hn::Load(di, to_expert + s * kLanes), offset);
    }
    choice.positions[j] = hn::Add(position, offset);
  }
}

// Unbiased scores of the chosen experts, from their logits.
HWY_INLINE void ScoreChosen(const RouteTask& task, int64_t first, const BlockChoice& choice,
                            size_t top_k, FloatVec* scores) {
  const FloatTag d;
  const IntTag di;
  const int32_t last_expert = task.config.num_experts - 1;
  HWY_ALIGN int32_t experts[kLanes];
  HWY_ALIGN float logits[kLanes];
  for (size_t j = 0; j < top_k; ++j) {
    // Rows that are unsure may hold any position.
    hn::Store(hn::Min(hn::Max(choice.positions[j], hn::Zero(di)), hn::Set(di, last_expert)), di,
              experts);
    for (size_t row = 0; row < kLanes; ++row) {
      logits[row] = LogitAt(task, first + static_cast<int64_t>(row), experts[row]);
    }
    const FloatVec logit = hn::Load(d, logits);
    const FloatVec lowest = hn::Set(d, numerics::ExpConstants::kLowestNormal);
    scores[j] = HWY_LIKELY(hn::AllTrue(d, hn::Ge(logit, lowest)))
                    ? Score<true>(task.config.score_function, logit)
                    : Score<false>(task.config.score_function, logit);
  }
}

// Denominators of rows too short for whole vectors, or not padded: one row a lane. Multiple of 4.
HWY_NOINLINE FloatVec LaneDenominators(const BlockScores& logits, FloatVec max) {
  const FloatTag d;
  HWY_ALIGN float terms[64 * kLanes];
  for (size_t begin = 0; begin < logits.size; begin += 4) {
    FloatVec columns[4];
    LoadFourColumns(logits.data + begin, logits.stride, columns);
    for (size_t i = 0; i < 4; ++i) {
      hn::Store(ExpOrZero(d, hn::Sub(columns[i], max)), d, terms + (begin + i) * kLanes);
    }
  }
  size_t count = logits.size;
  for (size_t half = std::bit_ceil(count) / 2; half > 0; half /= 2) {
    for (size_t i = 0; i + half < count; ++i) {
      float* p = terms + i * kLanes;
      hn::Store(hn::Add(hn::Load(d, p), hn::Load(d, p + half * kLanes)), d, p);
    }
    count = HWY_MIN(count, half);
  }
  return hn::Load(d, terms);
}

HWY_INLINE void WeighBlock(const RouteTask& task, const BlockPlan& plan, const BlockScores& logits,
                           int64_t first, const BlockChoice& choice, FloatVec* weights) {
  const RouterConfig& config = task.config;
  const auto top_k = static_cast<size_t>(config.top_k);
  if (plan.on_logits) {
    if (config.renormalize) {
      return WeighBySoftmax(config, choice.scores, top_k, nullptr, weights);
    }
    const auto num_experts = static_cast<size_t>(config.num_experts);
    // The best logit of all is always chosen: only the best group's maximum can hold it.
    const FloatVec max = choice.scores[0];
    const bool by_lanes = plan.in_place && num_experts <= 64;
    const FloatVec denominator = by_lanes
                                     ? LaneDenominators({logits.data, logits.stride, num_experts}, max)
                                     : RowDenominators(logits, num_experts, max);
    return WeighBySoftmax(config, choice.scores, top_k, &denominator, weights);
  }
  if (task.bias == nullptr) {
    for (size_t j = 0; j < top_k; ++j) weights[j] = choice.scores[j];
  } else {
    ScoreChosen(task, first, choice, top_k, weights);
  }
  WeighByScores(config, top_k, weights);
}

// Where a block's rows go.
struct BlockOutput {
  int32_t* ids;
  int64_t ids_stride;
  TensorView weights;  // its first row is the block's
};

HWY_INLINE void StoreBlock(const BlockOutput& out, size_t top_k, const IntVec* experts,
                           const FloatVec* weights) {
  FloatVec ids[kMaxBlockTopK];
  for (size_t j = 0; j < top_k; ++j) ids[j] = hn::BitCast(FloatTag(), experts[j]);
  StoreColumns(ids, top_k, out.ids, out.ids_stride);
  if (out.weights.dtype == DataType::kFloat32) {
    StoreColumns(weights, top_k, static_cast<float*>(out.weights.data), out.weights.row_stride);
    return;
  }
  HWY_ALIGN float rows[kLanes * kMaxBlockTopK];
  StoreColumns(weights, top_k, rows, static_cast<int64_t>(top_k));
  const auto narrow = out.weights.as<BFloat16>();
  for (size_t row = 0; row < kLanes; ++row) {
    BFloat16* const to = narrow.row(static_cast<int64_t>(row));
    for (size_t j = 0; j < top_k; ++j) to[j] = to_bfloat16(rows[row * top_k + j]);
  }
}

// Routes rows [first, first + kLanes). Returns the rows, as bits, that must be routed on their own.
template <BlockMethod kMethod>
HWY_NOINLINE uint64_t RouteBlock(const RouteTask& task, const BlockPlan& plan, int64_t first,
                               const float* HWY_RESTRICT bias,
                               float* HWY_RESTRICT scratch, float* HWY_RESTRICT compact,
                               const BlockOutput& out) {
  const auto top_k = static_cast<size_t>(task.config.top_k);
  BlockScores logits{nullptr, 0, plan.row_size};
  HWY_ALIGN int32_t to_expert[kLanes * kLanes];
  if (plan.in_place) {
    const auto rows = task.logits.as<float>();
    logits.data = rows.row(first);
    logits.stride = rows.row_stride;
  } else {
    for (size_t row = 0; row < kLanes; ++row) {
      FillScratchRow(task, plan, first + static_cast<int64_t>(row), bias,
                     scratch + row * plan.row_size);
    }
    logits.data = scratch;
    logits.stride = static_cast<int64_t>(plan.row_size);
  }
  BlockScores scores = logits;
  if (plan.limits_groups) {
    LimitBlockGroups(task, plan, scratch, compact, to_expert);
    scores = {compact, static_cast<int64_t>(plan.choice_size), plan.choice_size};
  }

  BlockChoice choice;
  ChooseBlock<kMethod>(scores, top_k, choice);
  if (plan.compacts) ExpertsFromPositions(plan, to_expert, top_k, choice);
  FloatVec weights[kMaxBlockTopK];
  WeighBlock(task, plan, logits, first, choice, weights);

  StoreBlock(out, top_k, choice.positions, weights);
  return choice.unsure;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

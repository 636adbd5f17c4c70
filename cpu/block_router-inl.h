// Routes blocks of kLanes rows at once, and tells which rows that does not cover.

// Per-target include guard
#if defined(SWITCHYARD_CPU_BLOCK_ROUTER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SWITCHYARD_CPU_BLOCK_ROUTER_INL_H_
#undef SWITCHYARD_CPU_BLOCK_ROUTER_INL_H_
#else
#define SWITCHYARD_CPU_BLOCK_ROUTER_INL_H_
#endif

#include <cmath>
#include <cstring>
#include <type_traits>

#include "cpu/block_choice-inl.h"
#include "cpu/block_plan-inl.h"
#include "cpu/block_scores-inl.h"
#include "cpu/block_threshold-inl.h"
#include "cpu/block_weights-inl.h"
#include "cpu/row_selection-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Where a block's rows go.
struct BlockOutput {
  int32_t* ids;
  int64_t ids_stride;
  TensorView weights;  // its first row is the block's
};

template <size_t kMost>
HWY_INLINE void StoreBlock(const BlockOutput& out, size_t top_k, const IntVec* experts,
                           const FloatVec* weights) {
  FloatVec ids[kMost];
  for (size_t j = 0; j < kMost; ++j) ids[j] = hn::BitCast(FloatTag(), experts[j]);
  StoreColumns<kMost>(ids, top_k, out.ids, out.ids_stride);
  if (out.weights.dtype == DataType::kFloat32) {
    StoreColumns<kMost>(weights, top_k, static_cast<float*>(out.weights.data),
                        out.weights.row_stride);
    return;
  }
  HWY_ALIGN float rows[kLanes * kMost];
  StoreColumns<kMost>(weights, top_k, rows, static_cast<int64_t>(top_k));
  const auto narrow = out.weights.as<BFloat16>();
  for (size_t row = 0; row < kLanes; ++row) {
    BFloat16* const to = narrow.row(static_cast<int64_t>(row));
    for (size_t j = 0; j < top_k; ++j) to[j] = to_bfloat16(rows[row * top_k + j]);
  }
}

template <BlockMethod kMethod, typename T>
HWY_INLINE void ChooseBlock(const BlockScores<T>& block, size_t top_k,
                            [[maybe_unused]] bool& expects_positive, BlockChoice& choice) {
  if constexpr (kMethod == BlockMethod::kPairs1) {
    ChooseByPairs<1>(block, choice);
  } else if constexpr (kMethod == BlockMethod::kPairs2) {
    ChooseByPairs<2>(block, choice);
  } else if constexpr (kMethod == BlockMethod::kLanes4) {
    ChooseByLanes<4>(block, top_k, expects_positive, choice);
  } else if constexpr (kMethod == BlockMethod::kLanes8) {
    ChooseByLanes<8>(block, top_k, expects_positive, choice);
  } else if constexpr (kMethod == BlockMethod::kThreshold4) {
    ChooseByThreshold<16, 4, 8>(block, top_k, choice);
  } else if constexpr (kMethod == BlockMethod::kThreshold8) {
    ChooseByThreshold<16, 8, 16>(block, top_k, choice);
  } else if constexpr (kMethod == BlockMethod::kThreshold12) {
    ChooseByThreshold<32, 16, 16>(block, top_k, choice);
  } else {
    ChooseByThreshold<32, 16, 32>(block, top_k, choice);
  }
}

// Chooses again, exactly, for rows that the block was unsure of. What stays unsure has too few
// finite scores, or infinities and NaN in the caller's own memory. Rows without any are told.
template <typename T>
HWY_NOINLINE void ChooseUnsureRows(BlockScores<T> block, size_t top_k, BlockChoice& choice) {
  for (uint64_t rows = choice.unsure & ~choice.degenerate; rows != 0; rows &= rows - 1) {
    const size_t row = hwy::Num0BitsBelowLS1Bit_Nonzero64(rows);
    HWY_ALIGN float widened[kMaxBlockScores];
    const size_t padded = PaddedSize(block.size);
    WidenRow(block.row(row), block.size, nullptr, widened);
    int32_t chosen[kMaxTopK];
    // A row without a finite score is not worth a search.
    FloatVec best = hn::Set(FloatTag(), kMinusInfinity);
    for (size_t i = 0; i < padded; i += kLanes) {
      best = MaxOfNumbers(hn::Load(FloatTag(), widened + i), best);
    }
    if (GreatestLane(best) == kMinusInfinity) {
      choice.degenerate |= uint64_t{1} << row;
      continue;
    }
    if (SelectRow(widened, padded, top_k, chosen) < top_k) continue;
    bool ordinary = true;
    for (size_t j = 0; j < top_k; ++j) ordinary &= std::isfinite(widened[chosen[j]]);
    if (!ordinary) continue;
    for (size_t j = 0; j < top_k; ++j) {
      std::memcpy(reinterpret_cast<int32_t*>(&choice.positions[j]) + row, chosen + j,
                  sizeof(int32_t));
      std::memcpy(reinterpret_cast<float*>(&choice.scores[j]) + row, widened + chosen[j],
                  sizeof(float));
    }
    choice.unsure &= ~(uint64_t{1} << row);
  }
}

// Unbiased scores of the chosen experts, from their logits.
template <typename L>
HWY_NOINLINE void ScoreChosen(ScoreFunction function, MatrixView<const L> logits, int64_t first,
                              const BlockChoice& choice, size_t top_k, FloatVec* scores) {
  const FloatTag d;
  const IntTag di;
  const IntVec last_expert = hn::Set(di, static_cast<int32_t>(logits.cols) - 1);
  HWY_ALIGN int32_t experts[kLanes * kMaxBlockTopK];
  HWY_ALIGN float chosen[kLanes * kMaxBlockTopK];
  for (size_t j = 0; j < top_k; ++j) {
    // Rows that are unsure may hold any position.
    const IntVec expert = hn::Min(hn::Max(choice.positions[j], hn::Zero(di)), last_expert);
    hn::Store(expert, di, experts + j * kLanes);
  }
  for (size_t row = 0; row < kLanes; ++row) {
    const L* from = logits.row(first + static_cast<int64_t>(row));
    for (size_t j = 0; j < top_k; ++j) {
      chosen[j * kLanes + row] = widen(from[experts[j * kLanes + row]]);
    }
  }
  for (size_t j = 0; j < top_k; ++j) {
    const FloatVec logit = hn::Load(d, chosen + j * kLanes);
    const FloatVec lowest = hn::Set(d, numerics::ExpConstants::kLowestNormal);
    scores[j] = HWY_LIKELY(hn::AllTrue(d, hn::Ge(logit, lowest))) ? Score<true>(function, logit)
                                                                  : Score<false>(function, logit);
  }
}

HWY_INLINE void ScoreChosen(const RouteTask& task, int64_t first, const BlockChoice& choice,
                            size_t top_k, FloatVec* scores) {
  const ScoreFunction function = task.config.score_function;
  switch (task.logits.dtype) {
    case DataType::kFloat32:
      return ScoreChosen(function, task.logits.as<float>(), first, choice, top_k, scores);
    case DataType::kFloat16:
      return ScoreChosen(function, task.logits.as<Float16>(), first, choice, top_k, scores);
    case DataType::kBFloat16:
      return ScoreChosen(function, task.logits.as<BFloat16>(), first, choice, top_k, scores);
  }
}

template <size_t kMost, bool kInPlace, typename T>
HWY_INLINE void WeighBlock(const RouteTask& task, const BlockPlan& plan,
                           const BlockScores<T>& logits, int64_t first, size_t top_k,
                           const BlockChoice& choice, FloatVec* weights) {
  const RouterConfig& config = task.config;
  if (kInPlace || plan.on_logits) {
    if (config.renormalize) {
      return WeighBySoftmax<kMost>(config, choice.scores, top_k, nullptr, weights);
    }
    // The best logit of all is always chosen: only the best group's maximum can hold it.
    const FloatVec max = choice.scores[0];
    const bool short_rows = kInPlace && logits.size <= kMaxLaneDenominators;
    const FloatVec denominator =
        short_rows ? LaneDenominators(logits, max)
                   : RowDenominators(logits, static_cast<size_t>(config.num_experts), max);
    return WeighBySoftmax<kMost>(config, choice.scores, top_k, &denominator, weights);
  }
  if (task.bias == nullptr) {
    for (size_t j = 0; j < kMost && j < top_k; ++j) weights[j] = choice.scores[j];
  } else {
    ScoreChosen(task, first, choice, top_k, weights);
  }
  WeighByScores<kMost>(config, top_k, weights);
}

// Reads the scores of rows [first, first + kLanes) into scratch memory, while the rows of the block
// `ahead` bytes behind them are fetched; `logits` and `scores` are told where they are.
HWY_INLINE void FillScratch(const RouteTask& task, const BlockPlan& plan, int64_t first,
                            int64_t ahead, BlockScratch& scratch, BlockScores<float>& logits,
                            BlockScores<float>& scores) {
  const int64_t bytes = size_of(task.logits.dtype);
  for (size_t row = 0; row < kLanes; ++row) {
    const int64_t token = first + static_cast<int64_t>(row);
    PrefetchRow(
        static_cast<const std::byte*>(task.logits.data) + token * task.logits.row_stride * bytes,
        ahead, static_cast<size_t>(task.logits.cols * bytes));
    FillScratchRow(task, plan, token, scratch.bias, scratch.scores + row * plan.row_size);
  }
  scores = logits = {scratch.scores, static_cast<int64_t>(plan.row_size), plan.row_size};
  if (plan.limits_groups) {
    LimitBlockGroups(task, plan, scratch);
    scores = {scratch.limited, static_cast<int64_t>(plan.choice_size), plan.choice_size};
  }
}

// Rows of a block, as bits.
struct LeftoverRows {
  uint64_t unrouted;    // must be routed on their own
  uint64_t degenerate;  // are routed, and to be counted
};

// Where every expert is enabled, the first ones stand in for a choice. Batches are padded with rows
// of NaN, so those are done at once.
template <size_t kMost>
HWY_INLINE void FillDegenerateRows(BlockChoice& choice, size_t top_k, FloatVec* weights) {
  const IntTag di;
  const auto lanes = LanesOfBits(choice.degenerate);
  for (size_t j = 0; j < kMost && j < top_k; ++j) {
    choice.positions[j] = hn::IfThenElse(hn::RebindMask(di, lanes),
                                         hn::Set(di, static_cast<int32_t>(j)), choice.positions[j]);
    weights[j] = hn::IfThenZeroElse(lanes, weights[j]);
  }
}

// Routes rows [first, first + kLanes) by their scores; the parameters are those of RouteBlock().
template <BlockMethod kMethod, size_t kTopK, bool kInPlace, typename T>
HWY_INLINE LeftoverRows RouteScores(const RouteTask& task, const BlockPlan& plan, int64_t first,
                                    const BlockScores<T>& logits, const BlockScores<T>& scores,
                                    BlockScratch& scratch, const BlockOutput& out) {
  constexpr size_t kMost = kTopK != 0 ? kTopK : MostChoices(kMethod);
  const size_t top_k = kTopK != 0 ? kTopK : static_cast<size_t>(task.config.top_k);
  BlockChoice choice;
  ChooseBlock<kMethod>(scores, top_k, scratch.expects_positive, choice);
  if (HWY_UNLIKELY(choice.unsure != 0)) {
    // A copy, for what a function is handed lies in memory.
    BlockChoice again;
    for (size_t j = 0; j < kMost; ++j) {
      again.positions[j] = choice.positions[j];
      again.scores[j] = choice.scores[j];
    }
    again.unsure = choice.unsure;
    again.degenerate = choice.degenerate;
    ChooseUnsureRows(scores, top_k, again);
    for (size_t j = 0; j < kMost; ++j) {
      choice.positions[j] = again.positions[j];
      choice.scores[j] = again.scores[j];
    }
    choice.unsure = again.unsure;
    choice.degenerate = again.degenerate;
  }
  if constexpr (!kInPlace) {
    if (plan.compacts) ExpertsFromPositions(plan, scratch.to_expert, top_k, choice);
  }
  FloatVec weights[kMost];
  WeighBlock<kMost, kInPlace>(task, plan, logits, first, top_k, choice, weights);
  LeftoverRows leftover{choice.unsure, 0};
  if constexpr (kInPlace) {
    if (HWY_UNLIKELY(choice.degenerate != 0)) {
      leftover = {choice.unsure & ~choice.degenerate, choice.degenerate};
      FillDegenerateRows<kMost>(choice, top_k, weights);
    }
  }
  StoreBlock<kMost>(out, top_k, choice.positions, weights);
  return leftover;
}

// Routes rows [first, first + kLanes); T is the type of the scores to choose from, and kInPlace as
// in the plan, kTopK the number of choices or 0 for the config's. Meanwhile it fetches the rows
// `ahead` bytes behind these, 0 for none.
template <BlockMethod kMethod, size_t kTopK, typename T, bool kInPlace>
HWY_INLINE LeftoverRows RouteBlock(const RouteTask& task, const BlockPlan& plan, int64_t first,
                                   int64_t ahead, BlockScratch& scratch, const BlockOutput& out) {
  if constexpr (kInPlace) {
    const auto rows = task.logits.as<T>();
    // One object: a copy of what was just written in pieces would wait for them.
    const BlockScores<T> logits{rows.row(first), rows.row_stride, plan.row_size, ahead};
    return RouteScores<kMethod, kTopK, true>(task, plan, first, logits, logits, scratch, out);
  } else {
    BlockScores<T> logits{};
    BlockScores<T> scores{};
    FillScratch(task, plan, first, ahead, scratch, logits, scores);
    return RouteScores<kMethod, kTopK, false>(task, plan, first, logits, scores, scratch, out);
  }
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard

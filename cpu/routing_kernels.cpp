// The router's kernels, compiled once for every instruction set.
#include <optional>

#include "cpu/block_plan.h"
#include "cpu/routing_task.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/routing_kernels.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "cpu/block_router-inl.h"
#include "cpu/row_router-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

HWY_INLINE bool IsPadding(const RouteTask& task, int64_t token) {
  return task.token_mask != nullptr && task.token_mask[token] == 0;
}

// A row that a block left over. Batches are padded with rows of NaN, so those are done at once.
void RouteLeftoverRow(const RouteTask& task, int64_t token, RouteTally& tally) {
  if (task.expert_mask == nullptr) {
    HWY_ALIGN float row[kMaxBlockScores];
    WidenRow(task, token, row);
    const size_t padded = PaddedSize(static_cast<size_t>(task.config.num_experts));
    if (CleanRow(row, padded) == kMinusInfinity) {
      ++tally.num_degenerate_rows;
      int32_t* const ids = task.expert_ids.row(token);
      for (int32_t slot = 0; slot < task.config.top_k; ++slot) {
        ids[slot] = slot;
        set_element(task.gate_weights, token, slot, 0.0f);
      }
      return;
    }
  }
  RouteRow(task, token, tally);
}

template <typename Visit>
HWY_INLINE void ForEachToken(const RouteTask& task, int64_t first, uint64_t rows,
                             const Visit& visit) {
  for (; rows != 0; rows &= rows - 1) {
    const int64_t token = first + static_cast<int64_t>(hwy::Num0BitsBelowLS1Bit_Nonzero64(rows));
    if (!IsPadding(task, token)) visit(token);
  }
}

HWY_NOINLINE void RouteLeftoverRows(const RouteTask& task, int64_t first, LeftoverRows rows,
                                    RouteTally& tally) {
  ForEachToken(task, first, rows.degenerate, [&](int64_t) { ++tally.num_degenerate_rows; });
  ForEachToken(task, first, rows.unrouted,
               [&](int64_t token) { RouteLeftoverRow(task, token, tally); });
}

#if HWY_TARGET != HWY_EMU128  // whose vectors are loops: blocks would only cost time to compile

// The rows of the task itself.
HWY_INLINE BlockOutput OutputOf(const RouteTask& task, int64_t first) {
  TensorView weights = task.gate_weights;
  weights.data =
      static_cast<std::byte*>(weights.data) + first * weights.row_stride * size_of(weights.dtype);
  return {task.expert_ids.row(first), task.expert_ids.row_stride, weights};
}

// Results of a whole block that ends a range, of which only the last rows are wanted.
struct LastBlock {
  HWY_ALIGN int32_t ids[kLanes * kMaxBlockTopK];
  HWY_ALIGN float weights[kLanes * kMaxBlockTopK];

  BlockOutput output(const RouteTask& task) {
    const int64_t top_k = task.config.top_k;
    return {ids, top_k, {weights, task.gate_weights.dtype, kLanes, top_k, top_k}};
  }

  // Copies rows [from, kLanes) to those of the task.
  void keep(const RouteTask& task, int64_t first, int64_t from) const {
    const int64_t top_k = task.config.top_k;
    const int64_t weight_bytes = top_k * size_of(task.gate_weights.dtype);
    for (int64_t row = from; row < static_cast<int64_t>(kLanes); ++row) {
      const BlockOutput out = OutputOf(task, first + row);
      std::memcpy(out.ids, ids + row * top_k, static_cast<size_t>(top_k) * sizeof(int32_t));
      std::memcpy(out.weights.data,
                  reinterpret_cast<const std::byte*>(weights) + row * weight_bytes,
                  static_cast<size_t>(weight_bytes));
    }
  }
};

// Batches up to this size stay in a core's second cache.
constexpr int64_t kCachedBytes = 1 << 20;

// Routes [begin, end), at least a block, in blocks; the last one reaches back over rows already
// done rather than leave a tail of single rows.
template <BlockMethod kMethod, size_t kTopK, typename T, bool kInPlace>
HWY_NOINLINE void RouteBlocks(const RouteTask& task, int64_t begin, int64_t end,
                              RouteTally& tally) {
  const BlockPlan& plan = *task.blocks;
  BlockScratch scratch;
  if (!plan.on_logits) {
    scratch.bias.fill(task.bias, static_cast<size_t>(task.config.num_experts));
  }
  LastBlock last;
  constexpr auto kRows = static_cast<int64_t>(kLanes);
  const int64_t row_bytes =
      task.logits.row_stride * (kInPlace ? int64_t{sizeof(T)} : size_of(task.logits.dtype));
  const int64_t num_tokens = task.logits.rows;
  const int64_t last_to_fetch =
      num_tokens * row_bytes <= kCachedBytes ? -1 : num_tokens - 2 * kRows;
  for (int64_t done = begin; done < end;) {
    const int64_t first = HWY_MIN(done, end - kRows);
    const BlockOutput out = first == done ? OutputOf(task, first) : last.output(task);
    const int64_t ahead = first <= last_to_fetch ? kRows * row_bytes : 0;
    LeftoverRows leftover =
        RouteBlock<kMethod, kTopK, T, kInPlace>(task, plan, first, ahead, scratch, out);
    if (first != done) {
      last.keep(task, first, done - first);
      leftover.unrouted &= ~uint64_t{0} << (done - first);
      leftover.degenerate &= ~uint64_t{0} << (done - first);
    }
    if (HWY_UNLIKELY((leftover.unrouted | leftover.degenerate) != 0)) {
      RouteLeftoverRows(task, first, leftover, tally);
    }
    FinishTokens(task, done, first + kRows, tally);
    done = first + kRows;
  }
}

// The kernel of blocks read in place; see IsCompiledFor().
template <BlockMethod kMethod, size_t kTopK>
RouteKernel KernelInPlace(DataType dtype) {
  static_assert(IsCompiledFor(kMethod, kTopK));
  return dtype == DataType::kBFloat16 ? &RouteBlocks<kMethod, kTopK, BFloat16, true>
                                      : &RouteBlocks<kMethod, kTopK, float, true>;
}

RouteKernel KernelInPlace(BlockMethod method, int32_t top_k, DataType dtype) {
  using M = BlockMethod;
  const bool six = top_k == 6;
  switch (method) {
    case M::kPairs1:
      return KernelInPlace<M::kPairs1, 1>(dtype);
    case M::kPairs2:
      return KernelInPlace<M::kPairs2, 2>(dtype);
    case M::kLanes4:
      return KernelInPlace<M::kLanes4, 4>(dtype);
    case M::kLanes8:
      return six ? KernelInPlace<M::kLanes8, 6>(dtype) : KernelInPlace<M::kLanes8, 8>(dtype);
    case M::kThreshold4:
      return KernelInPlace<M::kThreshold4, 4>(dtype);
    case M::kThreshold8:
      return six ? KernelInPlace<M::kThreshold8, 6>(dtype)
                 : KernelInPlace<M::kThreshold8, 8>(dtype);
    case M::kThreshold12:
      return KernelInPlace<M::kThreshold12, 10>(dtype);
    case M::kThreshold16:
    case M::kNone:
      break;
  }
  return nullptr;
}

RouteKernel KernelInScratch(BlockMethod method, int32_t top_k) {
  using M = BlockMethod;
  switch (method) {
    case M::kPairs1:
      return &RouteBlocks<M::kPairs1, 1, float, false>;
    case M::kPairs2:
      return &RouteBlocks<M::kPairs2, 2, float, false>;
    case M::kLanes4:
      return &RouteBlocks<M::kLanes4, 0, float, false>;
    case M::kLanes8:
      return &RouteBlocks<M::kLanes8, 0, float, false>;
    case M::kThreshold4:
      return &RouteBlocks<M::kThreshold4, 0, float, false>;
    case M::kThreshold8:
      // Models that choose by scores instead of logits mostly choose eight of many.
      return top_k == 8 ? &RouteBlocks<M::kThreshold8, 8, float, false>
                        : &RouteBlocks<M::kThreshold8, 0, float, false>;
    case M::kThreshold12:
      return &RouteBlocks<M::kThreshold12, 0, float, false>;
    case M::kThreshold16:
      return &RouteBlocks<M::kThreshold16, 0, float, false>;
    case M::kNone:
      break;
  }
  return nullptr;
}

#endif  // HWY_TARGET != HWY_EMU128

BlockPlan PlanFor(const RouterConfig& config, bool has_bias,
                  std::optional<DataType> in_place = std::nullopt) {
  BlockPlan plan = MakeBlockPlan(config, has_bias, in_place);
#if HWY_TARGET != HWY_EMU128
  plan.kernel = plan.in_place ? KernelInPlace(plan.method, config.top_k, *in_place)
                              : KernelInScratch(plan.method, config.top_k);
#endif
  return plan;
}

BlockPlans PlansFor(const RouterConfig& config) {
  BlockPlans plans;
  for (const DataType dtype : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
    plans.in_place[static_cast<size_t>(dtype)] = PlanFor(config, false, dtype);
  }
  plans.copied = PlanFor(config, false);
  plans.biased = PlanFor(config, true);
  return plans;
}

void RouteRange(const RouteTask& task, int64_t begin, int64_t end, RouteTally& tally) {
  if (end - begin >= static_cast<int64_t>(kLanes) && tally.loss_sums == nullptr &&
      task.blocks->kernel != nullptr) {
    return task.blocks->kernel(task, begin, end, tally);
  }
  for (int64_t token = begin; token < end; ++token) {
    if (!IsPadding(task, token)) RouteRow(task, token, tally);
  }
  FinishTokens(task, begin, end, tally);
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {

HWY_EXPORT(RouteRange);
HWY_EXPORT(PlansFor);

RouteKernel best_route_kernel() {
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return &HWY_DYNAMIC_DISPATCH(RouteRange);
}

BlockPlans best_block_plans(const RouterConfig& config) {
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return HWY_DYNAMIC_DISPATCH(PlansFor)(config);
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE

// The router's kernels, compiled once for every instruction set.
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

// The rows of the task itself.
HWY_INLINE BlockOutput OutputOf(const RouteTask& task, int64_t first) {
  TensorView weights = task.gate_weights;
  weights.data =
      static_cast<std::byte*>(weights.data) + first * weights.row_stride * size_of(weights.dtype);
  return {task.expert_ids.row(first), task.expert_ids.row_stride, weights};
}

// Routes a whole block that ends a range, and keeps only its last rows, from `done` on.
template <BlockMethod kMethod, typename T>
HWY_NOINLINE uint64_t RouteLastBlock(const RouteTask& task, const BlockPlan& plan, int64_t first,
                                     int64_t done, BlockScratch& scratch) {
  HWY_ALIGN int32_t ids[kLanes * kMaxBlockTopK];
  HWY_ALIGN float weights[kLanes * kMaxBlockTopK];
  const int64_t top_k = task.config.top_k;
  constexpr auto kRows = static_cast<int64_t>(kLanes);
  const DataType dtype = task.gate_weights.dtype;
  const BlockOutput local{ids, top_k, {weights, dtype, kRows, top_k, top_k}};
  const uint64_t alone = RouteBlock<kMethod, T>(task, plan, first, scratch, local);
  const int64_t weight_bytes = top_k * size_of(dtype);
  for (int64_t row = done - first; row < kRows; ++row) {
    const BlockOutput out = OutputOf(task, first + row);
    std::memcpy(out.ids, ids + row * top_k, static_cast<size_t>(top_k) * sizeof(int32_t));
    std::memcpy(out.weights.data, reinterpret_cast<std::byte*>(weights) + row * weight_bytes,
                static_cast<size_t>(weight_bytes));
  }
  return alone & ~uint64_t{0} << (done - first);
}

// Routes [begin, end), at least a block, in blocks; the last one reaches back over rows already
// done rather than leave a tail of single rows.
template <BlockMethod kMethod, typename T>
HWY_NOINLINE void RouteBlocks(const RouteTask& task, const BlockPlan& plan, int64_t begin,
                              int64_t end, RouteTally& tally) {
  BlockScratch scratch;
  if (!plan.on_logits) {
    const auto num_experts = static_cast<size_t>(task.config.num_experts);
    for (size_t i = 0; i < PaddedSize(num_experts); ++i) {
      scratch.bias[i] = task.bias != nullptr && i < num_experts ? task.bias[i] : 0.0f;
    }
  }
  constexpr auto kRows = static_cast<int64_t>(kLanes);
  for (int64_t done = begin; done < end;) {
    const int64_t first = HWY_MIN(done, end - kRows);
    uint64_t alone = first == done
                         ? RouteBlock<kMethod, T>(task, plan, first, scratch, OutputOf(task, first))
                         : RouteLastBlock<kMethod, T>(task, plan, first, done, scratch);
    for (; alone != 0; alone &= alone - 1) {
      const int64_t token = first + static_cast<int64_t>(hwy::Num0BitsBelowLS1Bit_Nonzero64(alone));
      if (!IsPadding(task, token)) RouteLeftoverRow(task, token, tally);
    }
    FinishTokens(task, done, first + kRows, tally);
    done = first + kRows;
  }
}

template <BlockMethod kMethod>
HWY_INLINE void RouteBlocks(const RouteTask& task, const BlockPlan& plan, int64_t begin,
                            int64_t end, RouteTally& tally) {
  if (plan.in_place && task.logits.dtype == DataType::kBFloat16) {
    return RouteBlocks<kMethod, BFloat16>(task, plan, begin, end, tally);
  }
  RouteBlocks<kMethod, float>(task, plan, begin, end, tally);
}

// Returns false where blocks do not apply.
HWY_INLINE bool RouteInBlocks(const RouteTask& task, int64_t begin, int64_t end,
                              RouteTally& tally) {
  const BlockPlan plan = MakeBlockPlan(task);
  const auto run = [&](auto method) HWY_ATTR {
    RouteBlocks<decltype(method)::value>(task, plan, begin, end, tally);
    return true;
  };
  using M = BlockMethod;
  switch (plan.method) {
    case M::kPairs1:
      return run(std::integral_constant<M, M::kPairs1>());
    case M::kPairs2:
      return run(std::integral_constant<M, M::kPairs2>());
    case M::kLanes4:
      return run(std::integral_constant<M, M::kLanes4>());
    case M::kLanes8:
      return run(std::integral_constant<M, M::kLanes8>());
    case M::kThreshold4:
      return run(std::integral_constant<M, M::kThreshold4>());
    case M::kThreshold8:
      return run(std::integral_constant<M, M::kThreshold8>());
    case M::kThreshold12:
      return run(std::integral_constant<M, M::kThreshold12>());
    case M::kThreshold16:
      return run(std::integral_constant<M, M::kThreshold16>());
    case M::kNone:
      break;
  }
  return false;
}

void RouteRange(const RouteTask& task, int64_t begin, int64_t end, RouteTally& tally) {
#if HWY_TARGET != HWY_EMU128  // whose vectors are loops: blocks would only cost time to compile
  if (end - begin >= static_cast<int64_t>(kLanes) && tally.loss_sums == nullptr &&
      RouteInBlocks(task, begin, end, tally)) {
    return;
  }
#endif
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

RouteKernel best_route_kernel() {
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return &HWY_DYNAMIC_DISPATCH(RouteRange);
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE

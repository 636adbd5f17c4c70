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
HWY_NOINLINE void RouteBlocks(const RouteTask& task, const BlockPlan& plan, int64_t begin,
                              int64_t end, RouteTally& tally) {
  BlockScratch scratch;
  if (!plan.on_logits) {
    scratch.bias.fill(task.bias, static_cast<size_t>(task.config.num_experts));
  }
  LastBlock last;
  const int64_t row_bytes = task.logits.row_stride * size_of(task.logits.dtype);
  const bool in_cache = (end - begin) * row_bytes <= kCachedBytes;
  constexpr auto kRows = static_cast<int64_t>(kLanes);
  for (int64_t done = begin; done < end;) {
    const int64_t first = HWY_MIN(done, end - kRows);
    const BlockOutput out = first == done ? OutputOf(task, first) : last.output(task);
    const int64_t ahead = in_cache || first + 2 * kRows > end ? 0 : kRows * row_bytes;
    uint64_t alone =
        RouteBlock<kMethod, kTopK, T, kInPlace>(task, plan, first, ahead, scratch, out);
    if (first != done) {
      last.keep(task, first, done - first);
      alone &= ~uint64_t{0} << (done - first);
    }
    for (; alone != 0; alone &= alone - 1) {
      const int64_t token = first + static_cast<int64_t>(hwy::Num0BitsBelowLS1Bit_Nonzero64(alone));
      if (!IsPadding(task, token)) RouteLeftoverRow(task, token, tally);
    }
    FinishTokens(task, done, first + kRows, tally);
    done = first + kRows;
  }
}

using BlocksKernel = void (*)(const RouteTask& task, const BlockPlan& plan, int64_t begin,
                              int64_t end, RouteTally& tally);

// The kernel of blocks read in place; see IsCompiledFor().
template <BlockMethod kMethod, size_t kTopK>
BlocksKernel KernelInPlace(const RouteTask& task) {
  static_assert(IsCompiledFor(kMethod, kTopK));
  return task.logits.dtype == DataType::kBFloat16 ? &RouteBlocks<kMethod, kTopK, BFloat16, true>
                                                  : &RouteBlocks<kMethod, kTopK, float, true>;
}

BlocksKernel KernelInPlace(const RouteTask& task, BlockMethod method) {
  using M = BlockMethod;
  const bool six = task.config.top_k == 6;
  switch (method) {
    case M::kPairs1:
      return KernelInPlace<M::kPairs1, 1>(task);
    case M::kPairs2:
      return KernelInPlace<M::kPairs2, 2>(task);
    case M::kLanes4:
      return KernelInPlace<M::kLanes4, 4>(task);
    case M::kLanes8:
      return six ? KernelInPlace<M::kLanes8, 6>(task) : KernelInPlace<M::kLanes8, 8>(task);
    case M::kThreshold4:
      return KernelInPlace<M::kThreshold4, 4>(task);
    case M::kThreshold8:
      return six ? KernelInPlace<M::kThreshold8, 6>(task) : KernelInPlace<M::kThreshold8, 8>(task);
    case M::kThreshold12:
      return KernelInPlace<M::kThreshold12, 10>(task);
    case M::kThreshold16:
    case M::kNone:
      break;
  }
  return nullptr;
}

BlocksKernel KernelInScratch(const RouteTask& task, BlockMethod method) {
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
      return task.config.top_k == 8 ? &RouteBlocks<M::kThreshold8, 8, float, false>
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

// Returns false where blocks do not apply.
HWY_INLINE bool RouteInBlocks(const RouteTask& task, int64_t begin, int64_t end,
                              RouteTally& tally) {
  const BlockPlan plan = MakeBlockPlan(task);
  const BlocksKernel kernel =
      plan.in_place ? KernelInPlace(task, plan.method) : KernelInScratch(task, plan.method);
  if (kernel == nullptr) return false;
  kernel(task, plan, begin, end, tally);
  return true;
}

#endif  // HWY_TARGET != HWY_EMU128

void RouteRange(const RouteTask& task, int64_t begin, int64_t end, RouteTally& tally) {
#if HWY_TARGET != HWY_EMU128
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

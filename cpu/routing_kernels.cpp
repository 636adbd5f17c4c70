// The router's kernels, compiled once for every instruction set.
#include "cpu/routing_task.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/routing_kernels.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "cpu/row_router-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

bool IsPadding(const RouteTask& task, int64_t token) {
  return task.token_mask != nullptr && task.token_mask[token] == 0;
}

void RouteRange(const RouteTask& task, int64_t begin, int64_t end, RouteTally& tally) {
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

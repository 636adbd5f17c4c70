// The router's kernels for single tokens, compiled once for every instruction set.
#include "cpu/routing_task.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/token_kernels.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "cpu/row_registers-inl.h"
#include "cpu/row_shortcut-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

TokenRouteKernel TokenKernelFor(const RouterConfig& config, bool prefers_residents) {
  if (!selects_on_logits(config, false) || config.num_groups != config.top_groups) return nullptr;
#if SWITCHYARD_ROW_REGISTERS
  if (FitsRegisters(config)) return RegisterKernelFor(static_cast<size_t>(config.num_experts));
#endif
  const bool is_short = config.top_k <= static_cast<int32_t>(kMaxShortcutTopK);
  return is_short && !prefers_residents ? &RouteTokenByShortcut : nullptr;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {

HWY_EXPORT(TokenKernelFor);

TokenRouteKernel best_token_kernel(const RouterConfig& config, bool prefers_residents) {
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return HWY_DYNAMIC_DISPATCH(TokenKernelFor)(config, prefers_residents);
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE

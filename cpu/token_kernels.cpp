// The router's kernels for single tokens, compiled once for every instruction set.
#include "cpu/routing_task.h"
#include "cpu/token_call.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/token_kernels.cpp"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "cpu/row_registers-inl.h"
#include "cpu/row_shortcut-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {

// In whole vectors where that can be: what is stored in pieces delays the loads that follow.
HWY_INLINE void WidenToken(const ConstTensorView& logits, float* HWY_RESTRICT out) {
  const auto num_experts = static_cast<size_t>(logits.cols);
  switch (logits.dtype) {
    case DataType::kFloat32:
      return WidenRow(logits.as<float>().data, num_experts, nullptr, out);
    case DataType::kFloat16:
      return WidenRow(logits.as<Float16>().data, num_experts, nullptr, out);
    case DataType::kBFloat16:
      break;
  }
#if SWITCHYARD_ROW_REGISTERS
  const auto* const row = static_cast<const std::byte*>(logits.data);
  for (size_t i = 0; i < num_experts; i += kLanes) {
    const auto present = static_cast<__mmask16>(FirstBits(num_experts - i));
    const __m256i bits = _mm256_maskz_loadu_epi16(present, row + i * sizeof(BFloat16));
    _mm512_store_si512(out + i, _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
#else
  WidenRow(logits.as<BFloat16>().data, num_experts, nullptr, out);
#endif
}

TokenOutcome RouteNarrowToken(TokenRouteKernel route, const TokenTask& task,
                              const ConstTensorView& logits) {
  HWY_ALIGN float widened[kMaxExperts];
  WidenToken(logits, widened);
  TokenTask wide = task;
  wide.logits = widened;
  return route(wide);
}

TokenKernels TokenKernelsFor(const RouterConfig& config, bool prefers_residents) {
  TokenKernels kernels;
  if (!selects_on_logits(config, false) || config.num_groups != config.top_groups) return kernels;
  kernels.route_narrow = &RouteNarrowToken;
#if SWITCHYARD_ROW_REGISTERS
  if (FitsRegisters(config)) {
    const auto num_experts = static_cast<size_t>(config.num_experts);
    kernels.route = RegisterKernelFor(num_experts);
    kernels.route_bfloat16 = OneVectorKernelFor<BFloat16>(num_experts);
    return kernels;
  }
#endif
  const bool is_short = config.top_k <= static_cast<int32_t>(kMaxShortcutTopK);
  if (is_short && !prefers_residents) kernels.route = &RouteTokenByShortcut;
  return kernels;
}

}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {

HWY_EXPORT(TokenKernelsFor);

TokenKernels best_token_kernels(const RouterConfig& config, bool prefers_residents) {
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return HWY_DYNAMIC_DISPATCH(TokenKernelsFor)(config, prefers_residents);
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE

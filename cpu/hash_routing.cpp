#include "cpu/hash_routing.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/hash_routing.cpp"
#include "hwy/foreach_target.h"
// Behind foreach_target, as Highway asks.
#include "cpu/row_inputs-inl.h"
#include "cpu/threads.h"
#include "hwy/highway.h"

#ifndef SWITCHYARD_CPU_HASH_ROUTING_ONCE_
#define SWITCHYARD_CPU_HASH_ROUTING_ONCE_

#include <algorithm>
#include <atomic>

namespace switchyard::cpu {

inline constexpr int64_t kTokenGrain = 256;

/// Weighs the tokens [begin, end); returns how many of them are degenerate.
using HashKernel = int64_t (*)(const HashRoutingCall& call, int64_t begin, int64_t end);

}  // namespace switchyard::cpu
#endif  // SWITCHYARD_CPU_HASH_ROUTING_ONCE_

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace {

/// The routed slots of one token, padded with what weighs nothing.
struct alignas(64) Slots {
  float values[kMaxTopK];
};

struct SoftmaxOfRow {
  float max;
  float denominator;
};

template <typename T>
SoftmaxOfRow SoftmaxOf(const T* logits, size_t num_experts) {
  HWY_ALIGN float row[kMaxExperts + kRowPadding];
  WidenRow(logits, num_experts, nullptr, row);
  const float max = CleanRow(row, PaddedSize(num_experts));
  if (max == kMinusInfinity) return {0.0f, 0.0f};
  return {max, FoldLanes(ExpSumLanes(row, num_experts, max))};
}

/// Replaces logits by scores; -inf, which stands for all that is not finite, by 0.
void ScoreSlots(ScoreFunction function, float max, size_t padded, Slots& slots) {
  const FloatTag d;
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec logit = hn::Load(d, slots.values + i);
    const auto finite = IsFiniteMask(logit);
    const FloatVec x = hn::IfThenElseZero(finite, logit);
    const FloatVec score = function == ScoreFunction::kSoftmax ? Exp(d, hn::Sub(x, hn::Set(d, max)))
                                                               : Score<false>(function, x);
    hn::Store(hn::IfThenElseZero(finite, score), d, slots.values + i);
  }
}

/// Returns false when no listed expert has a finite logit.
template <typename T>
bool WeighToken(const RouterConfig& config, const T* logits, const int32_t* experts, Slots& slots) {
  const FloatTag d;
  const auto top_k = static_cast<size_t>(config.top_k);
  const size_t padded = PaddedSize(std::bit_ceil(top_k));  // what the sum folds
  std::fill_n(slots.values, kMaxTopK, kMinusInfinity);
  for (size_t slot = 0; slot < top_k; ++slot) slots.values[slot] = widen(logits[experts[slot]]);
  const float max_chosen = CleanRow(slots.values, padded);

  float max = max_chosen;
  float total = 1.0f;
  const bool softmax = config.score_function == ScoreFunction::kSoftmax;
  if (softmax && !config.renormalize) {
    const SoftmaxOfRow row = SoftmaxOf(logits, static_cast<size_t>(config.num_experts));
    max = row.max;
    total = row.denominator;
  }
  ScoreSlots(config.score_function, max, padded, slots);
  if (config.renormalize) {
    Slots terms = slots;
    total = FoldedSum(terms.values, std::bit_ceil(top_k));
  }
  const bool divisible = total != 0.0f && std::isfinite(total);
  const FloatVec divisor = hn::Set(d, divisible ? total : 1.0f);
  const FloatVec scale = hn::Set(d, config.routed_scaling_factor);
  for (size_t i = 0; i < padded; i += kLanes) {
    const FloatVec weight = hn::Mul(hn::Div(hn::Load(d, slots.values + i), divisor), scale);
    hn::Store(divisible ? weight : hn::Zero(d), d, slots.values + i);
  }
  return max_chosen != kMinusInfinity;
}

bool WeighToken(const HashRoutingCall& call, int64_t token, const int32_t* experts, Slots& slots) {
  switch (call.logits.dtype) {
    case DataType::kFloat32:
      return WeighToken(call.config, call.logits.as<float>().row(token), experts, slots);
    case DataType::kFloat16:
      return WeighToken(call.config, call.logits.as<Float16>().row(token), experts, slots);
    case DataType::kBFloat16:
      return WeighToken(call.config, call.logits.as<BFloat16>().row(token), experts, slots);
  }
  return false;
}

template <typename Weight, typename Narrow>
int64_t LookUpAs(const HashRoutingCall& call, int64_t begin, int64_t end, const Narrow& narrow) {
  const RouterConfig& config = call.config;
  const MatrixView<Weight> gate_weights = call.result.gate_weights.as<Weight>();
  int64_t degenerate = 0;
  Slots slots;
  std::fill_n(slots.values, kMaxTopK, plain_hash_weight(call.config));
  for (int64_t token = begin; token < end; ++token) {
    int32_t* ids = call.result.expert_ids.row(token);
    Weight* weights = gate_weights.row(token);
    const int32_t token_id = call.token_ids[token];
    if (token_id < 0) {
      std::fill_n(ids, config.num_slots(), -1);
      std::fill_n(weights, config.num_slots(), narrow(0.0f));
      continue;
    }
    const int32_t* experts = call.table.row(token_id);
    if (call.logits.data != nullptr && !WeighToken(call, token, experts, slots)) ++degenerate;
    for (int32_t slot = 0; slot < config.top_k; ++slot) {
      ids[slot] = experts[slot];
      weights[slot] = narrow(slots.values[slot]);
    }
    for (int32_t slot = config.top_k; slot < config.num_slots(); ++slot) {
      ids[slot] = config.num_experts + slot - config.top_k;
      weights[slot] = narrow(config.shared_expert_weight);
    }
  }
  return degenerate;
}

int64_t LookUp(const HashRoutingCall& call, int64_t begin, int64_t end) {
  if (call.result.gate_weights.dtype == DataType::kFloat32) {
    return LookUpAs<float>(call, begin, end, [](float weight) { return weight; });
  }
  return LookUpAs<BFloat16>(call, begin, end, [](float weight) { return to_bfloat16(weight); });
}

// Asked for once a call, so that all its tasks run the same instruction set.
HashKernel GetHashKernel() { return &LookUp; }

}  // namespace
}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {
namespace {

HWY_EXPORT(GetHashKernel);

void look_up_experts(const HashRoutingCall& call, const ThreadTeam& team) {
  const HashKernel kernel = HWY_DYNAMIC_DISPATCH(GetHashKernel)();
  const int64_t num_tokens = call.num_tokens();
  std::atomic<int64_t> degenerate{0};
  team.run(num_tokens, team.num_tasks(num_tokens, kTokenGrain), 1,
           [&](int64_t begin, int64_t end, int) {
             degenerate.fetch_add(kernel(call, begin, end), std::memory_order_relaxed);
           });
  const RoutingResult& result = call.result;
  if (result.num_degenerate_rows != nullptr) *result.num_degenerate_rows = degenerate;
  if (result.tokens_per_expert.empty()) return;
  // After the tasks, since counting for each of them would need memory.
  std::fill_n(result.tokens_per_expert.data, result.tokens_per_expert.size, 0);
  for (int64_t token = 0; token < num_tokens; ++token) {
    const int32_t* ids = result.expert_ids.row(token);
    for (int32_t slot = 0; slot < call.config.num_slots(); ++slot) {
      if (ids[slot] >= 0) ++result.tokens_per_expert[ids[slot]];
    }
  }
}

class CpuHashRouter final : public HashRouter::Implementation {
 public:
  CpuHashRouter(const RouterConfig& router_config, const CpuThreads& threads)
      : Implementation(router_config, Backend::kCpu), team_(threads) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t) const override { return 0; }

  void route(const HashRoutingInputs& inputs, const RoutingResult& result, std::span<std::byte>,
             StreamView) const override {
    look_up_experts(HashRoutingCall(config, inputs, result), team_);
  }

 private:
  const ThreadTeam team_;
};

}  // namespace

std::unique_ptr<HashRouter::Implementation> make_cpu_hash_router(const RouterConfig& config,
                                                                 const CpuThreads& threads) {
  return std::make_unique<CpuHashRouter>(config, threads);
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE

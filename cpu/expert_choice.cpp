// Expert choice on the CPU. A task takes sixteen experts, one to a lane, and walks down the tokens:
// each lane keeps a bar that a token must pass to be remembered, so most tokens cost one
// comparison.
#include "cpu/expert_choice.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/expert_choice.cpp"
#include "hwy/foreach_target.h"
// Behind foreach_target, as Highway asks.
#include "cpu/row_inputs-inl.h"
#include "cpu/threads.h"
#include "hwy/highway.h"

#ifndef SWITCHYARD_CPU_EXPERT_CHOICE_ONCE_
#define SWITCHYARD_CPU_EXPERT_CHOICE_ONCE_

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>

namespace switchyard::cpu {

/// Experts of a task; one cache line of float32 logits.
inline constexpr int64_t kExpertBlock = 16;
inline constexpr int64_t kWorkspaceAlignment = 64;
inline constexpr int64_t kTokenGrain = 16;

/// The memory of a call: softmax rows of all tokens, and candidates for each task.
struct ExpertChoiceMemory {
  float* row_max = nullptr;
  float* row_denominator = nullptr;
  int64_t* candidates = nullptr;
  int64_t candidates_per_expert = 0;
};

/// Candidates are thinned to the best `capacity` when twice as many are there, hence rarely.
inline int64_t candidates_per_expert(int64_t num_tokens, int64_t capacity) {
  return capacity > num_tokens / 2 ? num_tokens : 2 * capacity;
}

/// The candidates of one expert: (key, ~token) pairs, greater is better.
struct Candidates {
  int64_t* items = nullptr;
  int64_t size = 0;
};

using TokenKernel = void (*)(const ExpertChoiceCall& call, const ExpertChoiceMemory& memory,
                             int64_t begin, int64_t end);
using ExpertKernel = void (*)(const ExpertChoiceCall& call, const ExpertChoiceMemory& memory,
                              int64_t first_expert, int64_t* candidates);

}  // namespace switchyard::cpu
#endif  // SWITCHYARD_CPU_EXPERT_CHOICE_ONCE_

HWY_BEFORE_NAMESPACE();
namespace switchyard::cpu::HWY_NAMESPACE {
namespace {

constexpr int32_t kNotFinite = std::numeric_limits<int32_t>::min() + 1;
constexpr int32_t kNothingYet = std::numeric_limits<int32_t>::min();
constexpr int32_t kNobody = std::numeric_limits<int32_t>::max();

/// Per expert of a block, lane by lane.
struct alignas(64) ExpertLanes {
  int32_t bar[kExpertBlock];
  float max[kExpertBlock];
  float denominator[kExpertBlock];
  Candidates candidates[kExpertBlock];
};

/// Where a token's sixteen logits lie; those of a last, narrower block are copied and padded.
template <typename T>
HWY_INLINE const T* BlockOfRow(const T* row, int64_t width, T* copy) {
  if (width == kExpertBlock) return row;
  std::copy_n(row, width, copy);
  return copy;
}

/// Integers in the order of the floats; -0 is +0.
HWY_INLINE IntVec KeyOf(FloatVec x) {
  const IntTag di;
  const IntVec bits = hn::BitCast(di, hn::Add(x, hn::Zero(FloatTag())));
  const IntVec flipped = hn::Xor(bits, hn::Set(di, 0x7fffffff));
  return hn::IfThenElse(hn::Lt(bits, hn::Zero(di)), flipped, bits);
}

HWY_INLINE float FromKey(int32_t key) {
  return std::bit_cast<float>(key < 0 ? key ^ 0x7fffffff : key);
}

/// Keeps the best `capacity` and raises the bar to the last of them. Tokens come in ascending
/// order, so one that only equals the bar ranks behind all that are kept.
HWY_INLINE void Thin(Candidates& candidates, int64_t capacity, int32_t& bar) {
  int64_t* last = candidates.items + capacity - 1;
  std::nth_element(candidates.items, last, candidates.items + candidates.size, std::greater<>());
  candidates.size = capacity;
  bar = static_cast<int32_t>(*last >> 32);
}

template <typename T>
void ScanTokens(const ExpertChoiceCall& call, const ExpertChoiceMemory& memory, int64_t first,
                int64_t width, ExpertLanes& lanes) {
  const FloatTag d;
  const IntTag di;
  const MatrixView<const T> logits = call.logits.as<T>();
  const bool over_experts = call.score == ExpertChoiceScore::kSoftmaxOverExperts;
  HWY_ALIGN int32_t keys[kExpertBlock];
  T copy[kExpertBlock] = {};
  for (int64_t token = 0; token < call.num_tokens(); ++token) {
    if (!call.takes_part(token)) continue;
    const T* row = BlockOfRow(logits.row(token) + first, width, copy);
    bool passes = false;
    for (size_t lane = 0; lane < kExpertBlock; lane += kLanes) {
      const FloatVec x = LoadWidened(row + lane);
      FloatVec ranked = x;
      if (over_experts) {
        const FloatVec distance = hn::Sub(x, hn::Set(d, memory.row_max[token]));
        ranked = hn::Div(ExpOrZero(d, distance), hn::Set(d, memory.row_denominator[token]));
      }
      const auto finite = hn::RebindMask(di, IsFiniteMask(x));
      const IntVec key = hn::IfThenElse(finite, KeyOf(ranked), hn::Set(di, kNotFinite));
      hn::Store(key, di, keys + lane);
      passes |= !hn::AllFalse(di, hn::Gt(key, hn::Load(di, lanes.bar + lane)));
    }
    if (!passes) continue;
    for (size_t lane = 0; lane < kExpertBlock; ++lane) {
      if (keys[lane] <= lanes.bar[lane]) continue;
      Candidates& candidates = lanes.candidates[lane];
      if (candidates.size == memory.candidates_per_expert) {
        Thin(candidates, call.capacity(), lanes.bar[lane]);
        if (keys[lane] <= lanes.bar[lane]) continue;
      }
      candidates.items[candidates.size++] =
          int64_t{keys[lane]} * (int64_t{1} << 32) + static_cast<uint32_t>(~token);
    }
  }
}

/// The softmax of each expert's column: its maximum, and its sum by the contract's tree. Visited in
/// bit-reversed order, the tree needs no more than one partial sum a level.
template <typename T>
void SumColumns(const ExpertChoiceCall& call, int64_t first, int64_t width, ExpertLanes& lanes) {
  const FloatTag d;
  const MatrixView<const T> logits = call.logits.as<T>();
  T copy[kExpertBlock] = {};
  std::fill_n(lanes.max, kExpertBlock, kMinusInfinity);
  for (int64_t token = 0; token < call.num_tokens(); ++token) {
    if (!call.takes_part(token)) continue;
    const T* row = BlockOfRow(logits.row(token) + first, width, copy);
    for (size_t lane = 0; lane < kExpertBlock; lane += kLanes) {
      const FloatVec x = LoadWidened(row + lane);
      const FloatVec best = hn::Load(d, lanes.max + lane);
      const auto better = hn::And(IsFiniteMask(x), hn::Gt(x, best));
      hn::Store(hn::IfThenElse(better, x, best), d, lanes.max + lane);
    }
  }

  const int levels = std::countr_zero(std::bit_ceil(static_cast<uint64_t>(call.num_tokens())));
  HWY_ALIGN float partial[65][kExpertBlock];
  uint64_t reversed = 0;
  for (uint64_t visit = 0; visit < uint64_t{1} << levels; ++visit) {
    const auto token = static_cast<int64_t>(reversed);
    const bool counts = token < call.num_tokens() && call.takes_part(token);
    const T* row = counts ? BlockOfRow(logits.row(token) + first, width, copy) : copy;
    const int carries = std::countr_one(visit);
    for (size_t lane = 0; lane < kExpertBlock; lane += kLanes) {
      FloatVec sum = hn::Zero(d);
      if (counts) {
        const FloatVec x = LoadWidened(row + lane);
        const FloatVec term = ExpOrZero(d, hn::Sub(x, hn::Load(d, lanes.max + lane)));
        sum = hn::IfThenElseZero(IsFiniteMask(x), term);
      }
      for (int level = 0; level < carries; ++level) {
        sum = hn::Add(hn::Load(d, partial[level] + lane), sum);
      }
      hn::Store(sum, d, partial[carries] + lane);
    }
    // Counting up flips the trailing ones and the zero above them; mirrored, the leading ones.
    if (carries < levels) reversed ^= ((uint64_t{2} << carries) - 1) << (levels - 1 - carries);
  }
  std::copy_n(partial[levels], kExpertBlock, lanes.denominator);
}

HWY_INLINE float WeightOf(const ExpertChoiceCall& call, int32_t key, float max, float denominator) {
  if (key == kNotFinite) return 0.0f;
  const float ranked = FromKey(key);
  if (call.score == ExpertChoiceScore::kSoftmaxOverExperts) return ranked;
  return numerics::exp_or_zero(ranked - max) / denominator;
}

void ChooseForExperts(const ExpertChoiceCall& call, const ExpertChoiceMemory& memory, int64_t first,
                      int64_t* candidates) {
  const int64_t width = std::min(kExpertBlock, call.num_experts() - first);
  ExpertLanes lanes;
  for (int64_t lane = 0; lane < kExpertBlock; ++lane) {
    lanes.bar[lane] = lane < width ? kNothingYet : kNobody;
    lanes.candidates[lane] = {candidates + lane * memory.candidates_per_expert, 0};
  }
  const auto scan = [&]<typename T>() {
    if (call.score == ExpertChoiceScore::kSoftmaxOverTokens) {
      SumColumns<T>(call, first, width, lanes);
    }
    ScanTokens<T>(call, memory, first, width, lanes);
  };
  switch (call.logits.dtype) {
    case DataType::kFloat32:
      scan.template operator()<float>();
      break;
    case DataType::kFloat16:
      scan.template operator()<Float16>();
      break;
    case DataType::kBFloat16:
      scan.template operator()<BFloat16>();
      break;
  }
  for (int64_t lane = 0; lane < width; ++lane) {
    Candidates& found = lanes.candidates[lane];
    if (found.size > call.capacity()) Thin(found, call.capacity(), lanes.bar[lane]);
    std::sort(found.items, found.items + found.size, std::greater<>());
    int32_t* ids = call.token_ids.row(first + lane);
    float* weights = call.gate_weights.row(first + lane);
    for (int64_t place = 0; place < call.capacity(); ++place) {
      ids[place] = -1;
      weights[place] = 0.0f;
      if (place >= found.size) continue;
      const int64_t item = found.items[place];
      ids[place] = static_cast<int32_t>(~static_cast<uint32_t>(item));
      weights[place] = WeightOf(call, static_cast<int32_t>(item >> 32), lanes.max[lane],
                                lanes.denominator[lane]);
    }
  }
}

/// Maximum and denominator of each token's row.
void SumRows(const ExpertChoiceCall& call, const ExpertChoiceMemory& memory, int64_t begin,
             int64_t end) {
  const auto num_experts = static_cast<size_t>(call.num_experts());
  HWY_ALIGN float row[kMaxExperts + kRowPadding];
  for (int64_t token = begin; token < end; ++token) {
    switch (call.logits.dtype) {
      case DataType::kFloat32:
        WidenRow(call.logits.as<float>().row(token), num_experts, nullptr, row);
        break;
      case DataType::kFloat16:
        WidenRow(call.logits.as<Float16>().row(token), num_experts, nullptr, row);
        break;
      case DataType::kBFloat16:
        WidenRow(call.logits.as<BFloat16>().row(token), num_experts, nullptr, row);
        break;
    }
    const float max = CleanRow(row, PaddedSize(num_experts));
    const bool any = max > kMinusInfinity;
    memory.row_max[token] = any ? max : 0.0f;
    memory.row_denominator[token] = any ? FoldLanes(ExpSumLanes(row, num_experts, max)) : 1.0f;
  }
}

// Asked for once a call, so that all its tasks run the same instruction set.
TokenKernel GetTokenKernel() { return &SumRows; }
ExpertKernel GetExpertKernel() { return &ChooseForExperts; }

}  // namespace
}  // namespace switchyard::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::cpu {
namespace {

HWY_EXPORT(GetTokenKernel);
HWY_EXPORT(GetExpertKernel);

int64_t align(int64_t bytes) {
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}

int64_t row_bytes(ExpertChoiceScore score, int64_t num_tokens) {
  if (score != ExpertChoiceScore::kSoftmaxOverExperts) return 0;
  return align(num_tokens * static_cast<int64_t>(sizeof(float)));
}

int num_expert_tasks(int64_t num_experts, const ThreadTeam& team) {
  return team.num_tasks((num_experts + kExpertBlock - 1) / kExpertBlock, 1);
}

int64_t choose_tokens_workspace_bytes(ExpertChoiceScore score, int64_t num_tokens,
                                      int64_t num_experts, int64_t capacity,
                                      const ThreadTeam& team) {
  const int64_t candidates = candidates_per_expert(num_tokens, capacity) * kExpertBlock *
                             static_cast<int64_t>(sizeof(int64_t));
  return kWorkspaceAlignment + 2 * row_bytes(score, num_tokens) +
         candidates * num_expert_tasks(num_experts, team);
}

void choose_tokens(const ExpertChoiceCall& call, std::span<std::byte> workspace,
                   const ThreadTeam& team) {
  const int64_t num_tokens = call.num_tokens();
  if (num_tokens == 0) return;
  auto address = reinterpret_cast<uintptr_t>(workspace.data());
  std::byte* memory_begin =
      workspace.data() + (align(static_cast<int64_t>(address)) - static_cast<int64_t>(address));
  ExpertChoiceMemory memory;
  const int64_t rows = row_bytes(call.score, num_tokens);
  memory.row_max = reinterpret_cast<float*>(memory_begin);
  memory.row_denominator = reinterpret_cast<float*>(memory_begin + rows);
  memory.candidates = reinterpret_cast<int64_t*>(memory_begin + 2 * rows);
  memory.candidates_per_expert = candidates_per_expert(num_tokens, call.capacity());

  if (call.score == ExpertChoiceScore::kSoftmaxOverExperts) {
    const TokenKernel kernel = HWY_DYNAMIC_DISPATCH(GetTokenKernel)();
    team.run(num_tokens, team.num_tasks(num_tokens, kTokenGrain), 1,
             [&](int64_t begin, int64_t end, int) { kernel(call, memory, begin, end); });
  }
  const ExpertKernel kernel = HWY_DYNAMIC_DISPATCH(GetExpertKernel)();
  team.run(call.num_experts(), num_expert_tasks(call.num_experts(), team), kExpertBlock,
           [&](int64_t begin, int64_t end, int task) {
             int64_t* candidates =
                 memory.candidates + task * memory.candidates_per_expert * kExpertBlock;
             for (int64_t first = begin; first < end; first += kExpertBlock) {
               kernel(call, memory, first, candidates);
             }
           });
}

class CpuExpertChoiceRouter final : public ExpertChoiceRouter::Implementation {
 public:
  CpuExpertChoiceRouter(const ExpertChoiceConfig& choice_config, const CpuThreads& threads)
      : Implementation(choice_config, Backend::kCpu), team_(threads) {}

  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    return choose_tokens_workspace_bytes(config.score, max_tokens, config.num_experts,
                                         expert_choice_capacity(config, max_tokens), team_);
  }

  void route(const ExpertChoiceInputs& inputs, const ExpertChoiceResult& result,
             std::span<std::byte> workspace, StreamView) const override {
    choose_tokens(ExpertChoiceCall(config, inputs, result), workspace, team_);
  }

 private:
  const ThreadTeam team_;
};

}  // namespace

std::unique_ptr<ExpertChoiceRouter::Implementation> make_cpu_expert_choice_router(
    const ExpertChoiceConfig& config, const CpuThreads& threads) {
  return std::make_unique<CpuExpertChoiceRouter>(config, threads);
}

}  // namespace switchyard::cpu
#endif  // HWY_ONCE

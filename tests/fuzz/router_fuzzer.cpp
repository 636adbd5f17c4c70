// Any configuration and any bits: the backends agree, ids are sound, nothing else is touched.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "switchyard/errors.h"
#include "switchyard/router.h"

namespace switchyard {
namespace {

void require(bool condition, const char* rule) {
  if (condition) return;
  std::fprintf(stderr, "broken rule: %s\n", rule);
  std::abort();
}

/// Hands out the fuzzer's bytes one after another, zeros when they run out.
class Bytes {
 public:
  explicit Bytes(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  template <typename T>
  T take() {
    T value{};
    const size_t count = std::min(sizeof(T), bytes_.size());
    std::memcpy(&value, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
    return value;
  }
  int32_t take_below(int32_t limit) { return take<uint16_t>() % limit; }
  bool flip() { return (take<uint8_t>() & 1) != 0; }
  [[nodiscard]] std::span<const uint8_t> rest() const { return bytes_; }

 private:
  std::span<const uint8_t> bytes_;
};

/// Runs its tasks last to first on the calling thread, so that splitting is tested without threads.
class BackwardExecutor final : public Executor {
 public:
  [[nodiscard]] int concurrency() const override { return 3; }
  void parallel_for(int num_tasks, Task task, void* context) override {
    for (int i = num_tasks - 1; i >= 0; --i) task(context, i);
  }
};

/// Memory for a [rows, stride] output with guard elements before, after and between the rows.
template <typename T>
class Guarded {
 public:
  Guarded(int64_t rows, int64_t cols, int64_t stride)
      : rows_(rows),
        cols_(cols),
        stride_(stride),
        memory_(static_cast<size_t>(2 * kGuard + rows * stride)) {
    std::memset(memory_.data(), kPattern, memory_.size() * sizeof(T));
  }

  [[nodiscard]] MatrixView<T> view() { return {memory_.data() + kGuard, rows_, cols_, stride_}; }
  [[nodiscard]] const T& at(int64_t row, int64_t col) const {
    return memory_[static_cast<size_t>(kGuard + row * stride_ + col)];
  }
  void require_guards(const char* rule) const {
    for (int64_t i = 0; i < static_cast<int64_t>(memory_.size()); ++i) {
      const int64_t offset = i - kGuard;
      const bool inside = offset >= 0 && offset < rows_ * stride_ && offset % stride_ < cols_;
      if (!inside) require(untouched(memory_[static_cast<size_t>(i)]), rule);
    }
  }
  void require_untouched(const char* rule) const {
    for (const T& element : memory_) require(untouched(element), rule);
  }
  [[nodiscard]] bool operator==(const Guarded& other) const {
    return std::memcmp(memory_.data(), other.memory_.data(), memory_.size() * sizeof(T)) == 0;
  }

 private:
  static constexpr int64_t kGuard = 8;
  static constexpr int kPattern = 0x5a;

  static bool untouched(const T& element) {
    const auto bytes = std::bit_cast<std::array<unsigned char, sizeof(T)>>(element);
    return std::all_of(bytes.begin(), bytes.end(), [](unsigned char b) { return b == kPattern; });
  }

  int64_t rows_;
  int64_t cols_;
  int64_t stride_;
  std::vector<T> memory_;
};

/// One input of the fuzzer, decoded.
struct Case {
  RouterConfig config;
  int64_t num_tokens = 0;
  DataType dtype = DataType::kFloat32;
  int64_t input_gap = 0;
  int64_t output_gap = 0;
  bool bfloat16_weights = false;
  bool with_losses = false;
  std::vector<float> bias;
  std::vector<uint8_t> token_mask;
  std::vector<uint8_t> expert_mask;
  std::vector<std::byte> logits;

  [[nodiscard]] RoutingInputs inputs() const {
    const int64_t stride = config.num_experts + input_gap;
    return {.logits = ConstTensorView(logits.data(), dtype, num_tokens, config.num_experts, stride),
            .selection_bias = {bias.data(), static_cast<int64_t>(bias.size())},
            .token_mask = {token_mask.data(), static_cast<int64_t>(token_mask.size())},
            .expert_mask = {expert_mask.data(), static_cast<int64_t>(expert_mask.size())}};
  }
};

float finite_or(float value, float otherwise) { return std::isfinite(value) ? value : otherwise; }

/// Mostly valid; a few fields are sometimes left as wild as they come.
RouterConfig decode_config(Bytes& bytes) {
  RouterConfig config;
  const uint8_t wild = bytes.take<uint8_t>();
  // Small and lane-sized rows most of the time, the largest now and then.
  const int32_t size_class = bytes.take_below(16);
  config.num_experts = 1 + bytes.take_below(size_class == 15 ? kMaxExperts : 80);
  const int32_t num_groups = 1 + bytes.take_below(8);
  if (config.num_experts % num_groups == 0) config.num_groups = num_groups;
  config.top_groups = 1 + bytes.take_below(config.num_groups);
  const int32_t reachable = config.num_experts / config.num_groups * config.top_groups;
  config.top_k = 1 + bytes.take_below(std::min(reachable, kMaxTopK));
  config.score_function = static_cast<ScoreFunction>(bytes.take_below(4));
  config.group_score = static_cast<GroupScore>(bytes.take_below(3));
  config.renormalize = bytes.flip();
  const float scale = std::abs(finite_or(bytes.take<float>(), 2.5f));
  config.routed_scaling_factor = bytes.flip() || scale == 0.0f ? 1.0f : scale;
  if (bytes.flip()) config.num_shared_experts = bytes.take_below(3);
  config.shared_expert_weight = finite_or(bytes.take<float>(), 1.0f);
  if (wild == 1) config.num_experts = bytes.take<int32_t>();
  if (wild == 2) config.top_k = bytes.take<int32_t>();
  if (wild == 3) config.num_groups = bytes.take<int32_t>();
  if (wild == 4) config.top_groups = bytes.take<int32_t>();
  if (wild == 5) config.routed_scaling_factor = bytes.take<float>();
  if (wild == 6) config.num_shared_experts = bytes.take<int32_t>();
  if (wild == 7) config.shared_expert_weight = bytes.take<float>();
  if (wild == 8) config.score_function = static_cast<ScoreFunction>(bytes.take<uint8_t>());
  if (wild == 9) config.group_score = static_cast<GroupScore>(bytes.take<uint8_t>());
  return config;
}

/// The documented limits, written a second time.
bool is_valid(const RouterConfig& c) {
  const auto in_range = [](int64_t value, int64_t low, int64_t high) {
    return value >= low && value <= high;
  };
  return in_range(c.num_experts, 1, kMaxExperts) && in_range(c.top_k, 1, kMaxTopK) &&
         c.top_k <= c.num_experts && in_range(static_cast<int>(c.score_function), 0, 3) &&
         in_range(static_cast<int>(c.group_score), 0, 2) &&
         std::isfinite(c.routed_scaling_factor) && c.routed_scaling_factor > 0.0f &&
         in_range(c.num_groups, 1, c.num_experts) && c.num_experts % c.num_groups == 0 &&
         in_range(c.top_groups, 1, c.num_groups) &&
         c.top_k <= c.num_experts / c.num_groups * c.top_groups &&
         (c.group_score != GroupScore::kTopKSum || c.top_k >= c.top_groups) &&
         in_range(c.num_shared_experts, 0, kMaxSharedExperts) &&
         std::isfinite(c.shared_expert_weight);
}

Case decode(Bytes& bytes, const RouterConfig& config) {
  Case c;
  c.config = config;
  const int64_t most = std::max<int64_t>(1, 1024 / config.num_experts);
  c.num_tokens = bytes.take_below(static_cast<int32_t>(std::min<int64_t>(most, 40) + 1));
  c.dtype = static_cast<DataType>(bytes.take_below(3));
  c.input_gap = bytes.take_below(4);
  c.output_gap = bytes.take_below(4);
  c.bfloat16_weights = bytes.flip();
  c.with_losses = bytes.flip();
  if (bytes.flip()) {
    c.bias.resize(static_cast<size_t>(config.num_experts));
    const auto step = bytes.take<float>();
    for (size_t i = 0; i < c.bias.size(); ++i) c.bias[i] = step * static_cast<float>(i % 5);
  }
  const auto fill_mask = [&](std::vector<uint8_t>& mask, int64_t size) {
    if (!bytes.flip()) return;
    mask.resize(static_cast<size_t>(size));
    const auto pattern = bytes.take<uint16_t>();
    for (size_t i = 0; i < mask.size(); ++i) mask[i] = (pattern >> (i % 13)) & 1;
  };
  fill_mask(c.token_mask, c.num_tokens);
  fill_mask(c.expert_mask, config.num_experts);

  // What is left of the input is the logits' bits, repeated with a change where it is short.
  const int64_t count = c.num_tokens * (config.num_experts + c.input_gap);
  c.logits.resize(static_cast<size_t>(count * size_of(c.dtype)));
  const std::span<const uint8_t> rest = bytes.rest();
  for (size_t i = 0; i < c.logits.size(); ++i) {
    const size_t round = rest.empty() ? 0 : i / rest.size();
    const uint8_t value = rest.empty() ? uint8_t{0} : rest[i % rest.size()];
    c.logits[i] = static_cast<std::byte>(value + 7 * round);
  }
  return c;
}

/// Everything that one call writes.
struct Outputs {
  explicit Outputs(const Case& c)
      : ids(c.num_tokens, c.config.num_slots(), c.config.num_slots() + c.output_gap),
        wide(c.bfloat16_weights ? 0 : c.num_tokens, c.config.num_slots(),
             c.config.num_slots() + c.output_gap),
        narrow(c.bfloat16_weights ? c.num_tokens : 0, c.config.num_slots(),
               c.config.num_slots() + c.output_gap),
        counts(1, c.config.num_expert_ids(), c.config.num_expert_ids()),
        degenerate(1, 1, 1),
        losses(1, router_sums(c), router_sums(c)) {}

  static int64_t router_sums(const Case& c) { return int64_t{c.config.num_experts} + 3; }

  RoutingResult result(const Case& c) {
    RoutingResult result;
    result.expert_ids = ids.view();
    result.gate_weights = c.bfloat16_weights ? TensorView(narrow.view()) : TensorView(wide.view());
    result.tokens_per_expert = {counts.view().data, counts.view().cols};
    result.num_degenerate_rows = degenerate.view().data;
    if (c.with_losses) result.loss_sums = {losses.view().data, losses.view().cols};
    return result;
  }

  [[nodiscard]] float weight(const Case& c, int64_t token, int64_t slot) const {
    return c.bfloat16_weights ? widen(narrow.at(token, slot)) : wide.at(token, slot);
  }

  void require_guards() const {
    ids.require_guards("expert_ids stay inside their rows");
    wide.require_guards("gate_weights stay inside their rows");
    narrow.require_guards("gate_weights stay inside their rows");
    counts.require_guards("tokens_per_expert stays inside");
    degenerate.require_guards("num_degenerate_rows stays inside");
    losses.require_guards("loss_sums stay inside");
  }

  void require_untouched() const {
    ids.require_untouched("a refused call writes no ids");
    wide.require_untouched("a refused call writes no weights");
    narrow.require_untouched("a refused call writes no weights");
    counts.require_untouched("a refused call writes no counts");
    degenerate.require_untouched("a refused call writes no degenerate rows");
    losses.require_untouched("a refused call writes no losses");
  }

  Guarded<int32_t> ids;
  Guarded<float> wide;
  Guarded<BFloat16> narrow;
  Guarded<int64_t> counts;
  Guarded<int64_t> degenerate;
  Guarded<int64_t> losses;
};

void require_sound(const Case& c, const Outputs& outputs) {
  std::vector<int64_t> counts(static_cast<size_t>(c.config.num_expert_ids()));
  for (int64_t token = 0; token < c.num_tokens; ++token) {
    const bool padding = !c.token_mask.empty() && c.token_mask[static_cast<size_t>(token)] == 0;
    std::vector<bool> seen(counts.size());
    for (int32_t slot = 0; slot < c.config.num_slots(); ++slot) {
      const int32_t id = outputs.ids.at(token, slot);
      const float weight = outputs.weight(c, token, slot);
      if (padding) {
        require(id == -1 && std::bit_cast<uint32_t>(weight) == 0, "padding is -1 at weight 0");
        continue;
      }
      const bool routed = slot < c.config.top_k;
      const int32_t first = routed ? 0 : c.config.num_experts;
      const int32_t last = routed ? c.config.num_experts : c.config.num_expert_ids();
      require(id >= first && id < last, "ids are in range");
      require(!seen[static_cast<size_t>(id)], "ids are unique in a row");
      seen[static_cast<size_t>(id)] = true;
      ++counts[static_cast<size_t>(id)];
      require(c.config.score_function != ScoreFunction::kSoftmax || !std::isnan(weight),
              "softmax weights are never NaN");
    }
  }
  for (size_t id = 0; id < counts.size(); ++id) {
    require(outputs.counts.at(0, static_cast<int64_t>(id)) == counts[id],
            "tokens_per_expert counts the ids");
  }
}

Outputs route(const Case& c, Backend backend, const CpuThreads& threads) {
  const Router router(c.config, backend, threads);
  Outputs outputs(c);
  std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(c.num_tokens)));
  router.route(c.inputs(), outputs.result(c), workspace);
  outputs.require_guards();
  return outputs;
}

void require_refusal(const Case& c) {
  const Router router(c.config, Backend::kCpu);
  Outputs outputs(c);
  RoutingResult result = outputs.result(c);
  ++result.expert_ids.cols;
  ++result.expert_ids.row_stride;
  std::vector<std::byte> workspace(static_cast<size_t>(router.workspace_bytes(c.num_tokens)));
  try {
    router.route(c.inputs(), result, workspace);
    require(false, "a wrong shape is refused");
  } catch (const InvalidArgument&) {
    outputs.require_untouched();
  }
}

void require_same_bits(const Outputs& a, const Outputs& b) {
  require(a.ids == b.ids, "backends agree on ids");
  require(a.wide == b.wide && a.narrow == b.narrow, "backends agree on weights");
  require(a.counts == b.counts, "backends agree on counts");
  require(a.degenerate == b.degenerate, "backends agree on degenerate rows");
}

void run(std::span<const uint8_t> input) {
  Bytes bytes(input);
  const RouterConfig config = decode_config(bytes);
  bool accepted = true;
  try {
    validate(config);
  } catch (const InvalidArgument&) {
    accepted = false;
  }
  require(accepted == is_valid(config), "exactly the documented configurations are accepted");
  if (!accepted) {
    for (const Backend backend : {Backend::kReference, Backend::kCpu}) {
      try {
        const Router router(config, backend);
        require(false, "a Router refuses what validate() refuses");
      } catch (const InvalidArgument&) {
      }
    }
    return;
  }
  const Case c = decode(bytes, config);
  const Outputs expected = route(c, Backend::kReference, {});
  require_sound(c, expected);
  require_same_bits(expected, route(c, Backend::kCpu, {.num_threads = 1}));
  BackwardExecutor executor;
  require_same_bits(expected, route(c, Backend::kCpu, {.executor = &executor}));
  require_refusal(c);
}

}  // namespace
}  // namespace switchyard

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  switchyard::run({data, size});
  return 0;
}

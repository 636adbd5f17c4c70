#include <cuda_runtime_api.h>

#include <optional>
#include <tuple>

#include "bench/peers/peer.h"
#include "bench/peers/torch_stand_in/stable_tensor.h"
#include "tests/simt/device_array.h"

// As vLLM declares them.
void topk_softmax(torch::stable::Tensor& topk_weights, torch::stable::Tensor& topk_indices,
                  torch::stable::Tensor& token_expert_indices, torch::stable::Tensor& gating_output,
                  bool renormalize, std::optional<torch::stable::Tensor> bias,
                  std::optional<torch::stable::Tensor> is_padding);
void topk_sigmoid(torch::stable::Tensor& topk_weights, torch::stable::Tensor& topk_indices,
                  torch::stable::Tensor& token_expert_indices, torch::stable::Tensor& gating_output,
                  bool renormalize, std::optional<torch::stable::Tensor> bias,
                  double routed_scaling_factor, std::optional<torch::stable::Tensor> is_padding);
std::tuple<torch::stable::Tensor, torch::stable::Tensor> grouped_topk(
    const torch::stable::Tensor& scores, int64_t n_group, int64_t topk_group, int64_t topk,
    bool renormalize, double routed_scaling_factor, const torch::stable::Tensor& bias,
    int64_t scoring_func);
void moe_align_block_size(torch::stable::Tensor topk_ids, int64_t num_experts, int64_t block_size,
                          torch::stable::Tensor sorted_token_ids, torch::stable::Tensor experts_ids,
                          torch::stable::Tensor num_tokens_post_pad,
                          std::optional<torch::stable::Tensor> maybe_expert_map,
                          std::optional<torch::stable::Tensor> scatter_idx);

namespace switchyard::bench {
namespace {

using test::DeviceArray;
using test::require_success;
using torch::stable::ScalarType;
using torch::stable::Tensor;

/// The least that vLLM's grouped GEMMs take.
constexpr int64_t kBlockRows = 16;

enum class Op { kNone, kSoftmax, kSigmoid, kGrouped };

Op op_for(const RouterConfig& config, bool has_bias) {
  if (config.num_shared_experts != 0) return Op::kNone;
  if (config.num_groups > 1) {
    const bool takes = config.score_function == ScoreFunction::kSigmoid && has_bias &&
                       config.group_score == GroupScore::kTop2Sum && config.top_k <= 32;
    return takes ? Op::kGrouped : Op::kNone;
  }
  if (config.score_function == ScoreFunction::kSigmoid) return Op::kSigmoid;
  const bool takes = config.score_function == ScoreFunction::kSoftmax && !has_bias &&
                     config.routed_scaling_factor == 1.0f;
  return takes ? Op::kSoftmax : Op::kNone;
}

size_t as_size(int64_t count) { return static_cast<size_t>(count); }

struct Outputs {
  Outputs(int64_t num_tokens, const RouterConfig& config)
      : ids(as_size(num_tokens * config.top_k)),
        weights(ids.size()),
        token_expert_indices(ids.size()),
        sorted(ids.size() + as_size(config.num_experts * (kBlockRows - 1))),
        block_experts(sorted.size() / as_size(kBlockRows) + 1),
        num_rows(1) {}
  DeviceArray<int32_t> ids;
  DeviceArray<float> weights;
  DeviceArray<int32_t> token_expert_indices;
  DeviceArray<int32_t> sorted;
  DeviceArray<int32_t> block_experts;
  DeviceArray<int32_t> num_rows;
};

class VllmBatch : public PeerBatch {
 public:
  VllmBatch(const GpuBatches& batches, Op op)
      : batches_(batches),
        config_(batches.router().router().config()),
        num_tokens_(batches.inputs(0).logits.rows),
        op_(op),
        memory_(as_size(num_tokens_ * (config_.num_experts + 2 * config_.top_k) * 4 + (1 << 20))) {
    for (int i = 0; i < batches.num_sets(); ++i) {
      outputs_.push_back(std::make_unique<Outputs>(num_tokens_, config_));
    }
  }

  [[nodiscard]] std::vector<PeerCall> calls() const override {
    const int64_t bytes = batches_.calls().front().bytes;
    const std::string name = op_ == Op::kSoftmax   ? "vLLM topk_softmax"
                             : op_ == Op::kSigmoid ? "vLLM topk_sigmoid"
                                                   : "vLLM grouped_topk";
    return {{{name, bytes, [this](int copy, StreamView stream) { route(copy, stream); }}, "route"},
            {{name + ", align", bytes,
              [this](int copy, StreamView stream) { align(copy, route(copy, stream)); }},
             "route_and_sort"}};
  }

  [[nodiscard]] std::vector<int32_t> expert_ids() const override { return download<int32_t>(ids_); }
  [[nodiscard]] std::vector<float> gate_weights() const override {
    return download<float>(weights_);
  }

 private:
  /// Returns the ids.
  Tensor route(int copy, StreamView stream) const {
    torch::stable::context = {.memory = memory_.data(),
                              .bytes = memory_.size(),
                              .stream = static_cast<cudaStream_t>(stream.get())};
    const RoutingInputs inputs = batches_.inputs(copy);
    const Outputs& out = outputs(copy);
    const bool is_float = inputs.logits.dtype == DataType::kFloat32;
    // The interface knows no constant tensors.
    Tensor logits(const_cast<void*>(inputs.logits.data), {num_tokens_, config_.num_experts},
                  is_float ? ScalarType::Float : ScalarType::BFloat16);
    std::optional<Tensor> bias;
    if (!inputs.selection_bias.empty()) {
      bias.emplace(const_cast<float*>(inputs.selection_bias.data),
                   std::vector<int64_t>{config_.num_experts}, ScalarType::Float);
    }
    Tensor ids(out.ids.data(), {num_tokens_, config_.top_k}, ScalarType::Int);
    Tensor weights(out.weights.data(), {num_tokens_, config_.top_k}, ScalarType::Float);
    Tensor indices(out.token_expert_indices.data(), {num_tokens_, config_.top_k}, ScalarType::Int);
    const double scale = config_.routed_scaling_factor;
    if (op_ == Op::kSoftmax) {
      topk_softmax(weights, ids, indices, logits, config_.renormalize, std::nullopt, std::nullopt);
    } else if (op_ == Op::kSigmoid) {
      topk_sigmoid(weights, ids, indices, logits, config_.renormalize, bias, scale, std::nullopt);
    } else {
      constexpr int64_t kSigmoid = 1;
      std::tie(weights, ids) =
          grouped_topk(logits, config_.num_groups, config_.top_groups, config_.top_k,
                       config_.renormalize, scale, *bias, kSigmoid);
    }
    ids_ = ids.data_ptr();
    weights_ = weights.data_ptr();
    return ids;
  }

  void align(int copy, const Tensor& ids) const {
    const Outputs& out = outputs(copy);
    const auto tensor = [](const DeviceArray<int32_t>& array) {
      return Tensor(array.data(), {static_cast<int64_t>(array.size())}, ScalarType::Int);
    };
    moe_align_block_size(ids, config_.num_experts, kBlockRows, tensor(out.sorted),
                         tensor(out.block_experts), tensor(out.num_rows), std::nullopt,
                         std::nullopt);
  }

  template <typename T>
  [[nodiscard]] std::vector<T> download(const void* from) const {
    std::vector<T> values(as_size(num_tokens_ * config_.top_k));
    require_success(
        cudaMemcpy(values.data(), from, values.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }
  [[nodiscard]] const Outputs& outputs(int copy) const {
    return *outputs_[as_size(copy) % outputs_.size()];
  }

  const GpuBatches& batches_;
  RouterConfig config_;
  int64_t num_tokens_;
  Op op_;
  DeviceArray<char> memory_;
  std::vector<std::unique_ptr<Outputs>> outputs_;
  // Of the last call.
  mutable const void* ids_ = nullptr;
  mutable const void* weights_ = nullptr;
};

}  // namespace

std::unique_ptr<PeerBatch> make_vllm_batch(const GpuBatches& batches) {
  const RoutingInputs inputs = batches.inputs(0);
  const Op op = op_for(batches.router().router().config(), !inputs.selection_bias.empty());
  if (op == Op::kNone) return nullptr;
  return std::make_unique<VllmBatch>(batches, op);
}

}  // namespace switchyard::bench

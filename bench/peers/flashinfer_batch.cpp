#include <cuda_runtime_api.h>

#include <algorithm>

#include "bench/peers/peer.h"
#include "flashinfer/trtllm/fused_moe/RoutingKernel.h"
#include "switchyard/data_type.h"
#include "tests/simt/device_array.h"

namespace switchyard::bench {
namespace {

using test::DeviceArray;
using test::require_success;
namespace routing = moe::dev::routing;
using routing::tg::Dtype;

/// Rows that its grouped GEMMs take at once, the fewest.
constexpr int32_t kTileRowsLog2 = 3;
constexpr int32_t kTileRows = 1 << kTileRowsLog2;

size_t as_size(int64_t count) { return static_cast<size_t>(count); }

/// What the kernels that route with groups take, and those that route without.
enum class Method { kNone, kRenormalize, kSigmoidBias, kGrouped };

Method method_for(const RouterConfig& config, bool has_bias) {
  if (config.num_shared_experts != 0 || !config.renormalize) return Method::kNone;
  if (config.num_groups > 1) {
    const bool takes = config.score_function == ScoreFunction::kSigmoid && has_bias &&
                       config.group_score == GroupScore::kTop2Sum && config.top_groups <= 4;
    return takes ? Method::kGrouped : Method::kNone;
  }
  if (config.score_function == ScoreFunction::kSigmoid && has_bias) return Method::kSigmoidBias;
  const bool takes = config.score_function == ScoreFunction::kSoftmax && !has_bias &&
                     config.routed_scaling_factor == 1.0f;
  return takes ? Method::kRenormalize : Method::kNone;
}

struct Outputs {
  Outputs(int64_t num_tokens, const RouterConfig& config)
      : packed(as_size(num_tokens * config.top_k)),
        weights(packed.size()),
        counts(as_size(std::max(512, 2 * config.num_experts))),
        num_rows(1),
        assignment_to_row(packed.size()),
        row_to_assignment(packed.size() + as_size(config.num_experts * (kTileRows - 1))),
        row_to_token(row_to_assignment.size()),
        tile_experts(row_to_assignment.size()),
        tile_limits(row_to_assignment.size()),
        num_tiles(1),
        ids(packed.size()) {}
  DeviceArray<uint32_t> packed;  ///< its scratch
  DeviceArray<BFloat16> weights;
  DeviceArray<int32_t> counts;
  DeviceArray<int32_t> num_rows;
  DeviceArray<int32_t> assignment_to_row;
  DeviceArray<int32_t> row_to_assignment;
  DeviceArray<int32_t> row_to_token;
  DeviceArray<int32_t> tile_experts;
  DeviceArray<int32_t> tile_limits;
  DeviceArray<int32_t> num_tiles;
  DeviceArray<int16_t> ids;
};

class FlashInferBatch : public PeerBatch {
 public:
  FlashInferBatch(const GpuBatches& batches, Method method)
      : batches_(batches),
        config_(batches.router().router().config()),
        num_tokens_(batches.inputs(0).logits.rows),
        method_(method) {
    for (int i = 0; i < batches.num_sets(); ++i) {
      outputs_.push_back(std::make_unique<Outputs>(num_tokens_, config_));
    }
  }

  [[nodiscard]] std::vector<PeerCall> calls() const override {
    return {{{"FlashInfer route, permute", batches_.calls().front().bytes,
              [this](int copy, StreamView stream) { route(copy, stream); }},
             "route_and_sort"}};
  }

  [[nodiscard]] std::vector<int32_t> expert_ids() const override {
    const std::vector<int16_t> ids = outputs_.front()->ids.download();
    return {ids.begin(), ids.end()};
  }
  [[nodiscard]] std::vector<float> gate_weights() const override {
    std::vector<float> weights;
    for (const BFloat16 weight : outputs_.front()->weights.download()) {
      weights.push_back(widen(weight));
    }
    return weights;
  }

 private:
  void set_up(routing::DataBase& data, int copy) const {
    const RoutingInputs inputs = batches_.inputs(copy);
    const Outputs& out = *outputs_[as_size(copy) % outputs_.size()];
    data.mUsePdl = true;
    data.mPtrScores = inputs.logits.data;
    data.mPtrTopKPacked = out.packed.data();
    data.mPtrTopKWeights = out.weights.data();
    data.mPtrExpertCounts = out.counts.data();
    data.mPtrPermutedIdxSize = out.num_rows.data();
    data.mPtrExpandedIdxToPermutedIdx = out.assignment_to_row.data();
    data.mPtrPermutedIdxToExpandedIdx = out.row_to_assignment.data();
    data.mPtrPermutedIdxToTokenIdx = out.row_to_token.data();
    data.mPtrCtaIdxXyToBatchIdx = out.tile_experts.data();
    data.mPtrCtaIdxXyToMnLimit = out.tile_limits.data();
    data.mPtrNumNonExitingCtas = out.num_tiles.data();
    data.mNumTokens = static_cast<int32_t>(num_tokens_);
    data.mNumExperts = config_.num_experts;
    data.mTopK = config_.top_k;
    data.mTileTokensDim = kTileRows;
    data.mPaddingLog2 = kTileRowsLog2;
    data.mLocalExpertsStartIdx = 0;
    data.mLocalExpertsStrideLog2 = 0;
    data.mNumLocalExperts = config_.num_experts;
    data.mTotalExpertsPerToken = config_.top_k;
    // What it calls a replay is the only place where every path of it writes the ids.
    data.mPtrRoutingReplayOut = out.ids.data();
  }

  void route(int copy, StreamView stream) const {
    const RoutingInputs inputs = batches_.inputs(copy);
    const Dtype logits = inputs.logits.dtype == DataType::kFloat32 ? Dtype::Fp32 : Dtype::Bfloat16;
    constexpr float kEpsilon = 1e-20f;  // as its own runner sets it
    if (method_ == Method::kGrouped) {
      routing::routingDeepSeek::Data data{};
      set_up(data, copy);
      data.mDtypeInput = logits;
      data.mDtypeOutput = Dtype::Bfloat16;
      data.mPtrRoutingBias = inputs.selection_bias.data;
      data.mDtypeBias = Dtype::Fp32;
      data.mNumExpertGroups = config_.num_groups;
      data.mNumLimitedGroups = config_.top_groups;
      data.mRouteScale = config_.routed_scaling_factor;
      data.mSumEpsilon = kEpsilon;
      data.mUseRoutingSoftmax = false;
      routing::routingDeepSeek::run(data, stream.get());
      return;
    }
    routing::routingCustom::Data data{};
    set_up(data, copy);
    data.mDtypeInput = logits;
    data.mDtypeOutput = Dtype::Bfloat16;
    if (method_ == Method::kSigmoidBias) {
      data.mPreprocessType = routing::RoutingPreprocessType::SigmoidBias;
      data.mPostprocessType = routing::RoutingPostprocessType::ScaledSumNormalize;
      data.mPtrRoutingBias = inputs.selection_bias.data;
      data.mDtypeBias = Dtype::Fp32;
      data.mRouteScale = config_.routed_scaling_factor;
      data.mSumEpsilon = kEpsilon;
    }
    routing::routingCustom::run(data, stream.get());
  }

  const GpuBatches& batches_;
  RouterConfig config_;
  int64_t num_tokens_;
  Method method_;
  std::vector<std::unique_ptr<Outputs>> outputs_;
};

}  // namespace

std::unique_ptr<PeerBatch> make_flashinfer_batch(const GpuBatches& batches) {
  const RoutingInputs inputs = batches.inputs(0);
  const Method method =
      method_for(batches.router().router().config(), !inputs.selection_bias.empty());
  if (method == Method::kNone) return nullptr;
  return std::make_unique<FlashInferBatch>(batches, method);
}

}  // namespace switchyard::bench

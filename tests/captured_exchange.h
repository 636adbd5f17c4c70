// Exchanges in CUDA graphs: every rank captures one and launches it with other rows.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "switchyard/buffer.h"
#include "switchyard/expert_exchange.h"
#include "tests/communicator_case.h"
#include "tests/random_stream.h"
#include "tests/simt/device_array.h"

namespace switchyard::test {

/// A graph of one rank. The ranks are threads, so what the others do must not break it.
class RankGraph {
 public:
  RankGraph() = default;
  RankGraph(const RankGraph&) = delete;
  RankGraph& operator=(const RankGraph&) = delete;
  ~RankGraph() {
    if (executable_ != nullptr) cudaGraphExecDestroy(executable_);
  }

  template <typename Enqueue>
  void capture(cudaStream_t stream, const Enqueue& enqueue) {
    cudaGraph_t graph = nullptr;
    require_success(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    enqueue();
    require_success(cudaStreamEndCapture(stream, &graph));
    require_success(cudaGraphInstantiate(&executable_, graph, 0));
    cudaGraphDestroy(graph);
  }
  void launch(cudaStream_t stream) const { require_success(cudaGraphLaunch(executable_, stream)); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

/// A rank's batch, its experts the identity, and what comes out. The last rank has no tokens.
class ExchangedBatch {
 public:
  static constexpr int32_t kTopK = 2;
  static constexpr int64_t kHidden = 6;
  static constexpr int64_t kRowBytes = kHidden * static_cast<int64_t>(sizeof(float));
  static constexpr int64_t kScaleBytes = 3;

  ExchangedBatch(Communicator& communicator, bool deduplicates, bool has_scales)
      : has_scales_(has_scales),
        random_(static_cast<uint64_t>(communicator.rank()) + 1),
        num_tokens_(is_last(communicator) ? 0 : 5 + communicator.rank()),
        exchange_({.placement =
                       ExpertPlacement::contiguous(num_experts(communicator), communicator.size()),
                   .top_k = kTopK,
                   .max_tokens = 8,
                   .deduplicate = deduplicates},
                  communicator),
        plan_(exchange_.make_plan()) {
    Buffer<int32_t> ids(num_tokens_ * kTopK, Backend::kCuda);
    const int64_t most = num_experts(communicator);
    for (int64_t i = 0; i < ids.size(); i += 2) {
      ids[i] = static_cast<int32_t>(random_.below(most));
      ids[i + 1] =
          (ids[i] + 1 + static_cast<int32_t>(random_.below(most - 1))) % num_experts(communicator);
    }
    weights_ = Buffer<float>(ids.size(), Backend::kCuda);
    Buffer<std::byte> workspace(exchange_.plan_workspace_bytes(), Backend::kCuda);
    exchange_.plan(std::as_const(ids).matrix(num_tokens_, kTopK), plan_, workspace.bytes());
    tokens_ = Buffer<float>(num_tokens_ * kHidden, Backend::kCuda);
    scales_ = Buffer<std::byte>(num_tokens_ * kScaleBytes, Backend::kCuda);
    const int64_t num_rows = plan_.num_expert_rows();
    rows_ = Buffer<float>(num_rows * kHidden, Backend::kCuda);
    row_scales_ = Buffer<std::byte>(num_rows * kScaleBytes, Backend::kCuda);
    combined_ = Buffer<float>(num_tokens_ * kHidden, Backend::kCuda);
    dispatch_memory_ = Buffer<std::byte>(
        exchange_.dispatch_workspace_bytes(plan_, kRowBytes + kScaleBytes), Backend::kCuda);
    combine_memory_ = Buffer<std::byte>(
        exchange_.combine_workspace_bytes(plan_, kHidden, DataType::kFloat32), Backend::kCuda);
  }

  /// Other rows and weights.
  void fill() {
    for (float& value : tokens_) value = static_cast<float>(random_.below(1000));
    for (float& value : weights_) value = static_cast<float>(random_.below(100)) / 64.0f;
    for (std::byte& value : scales_) value = static_cast<std::byte>(random_.below(256));
    clear();
  }
  /// What an exchange writes.
  void clear() {
    std::fill(combined_.begin(), combined_.end(), -1.0f);
    std::fill(rows_.begin(), rows_.end(), -1.0f);
    std::fill(row_scales_.begin(), row_scales_.end(), std::byte{99});
  }

  void enqueue(cudaStream_t stream) {
    const int64_t num_rows = plan_.num_expert_rows();
    DispatchRows scales;
    if (has_scales_) {
      scales = {std::as_const(scales_).matrix(num_tokens_, kScaleBytes),
                row_scales_.matrix(num_rows, kScaleBytes)};
    }
    exchange_.start_dispatch(
        plan_,
        {{reinterpret_cast<const std::byte*>(tokens_.data()), num_tokens_, kRowBytes},
         {reinterpret_cast<std::byte*>(rows_.data()), num_rows, kRowBytes}},
        scales, dispatch_memory_.bytes(), stream);
    exchange_.finish_dispatch(stream);
    exchange_.start_combine(
        plan_,
        {TensorView{rows_.data(), DataType::kFloat32, num_rows, kHidden, kHidden},
         std::as_const(weights_).matrix(num_tokens_, kTopK),
         TensorView{combined_.data(), DataType::kFloat32, num_tokens_, kHidden, kHidden}},
        combine_memory_.bytes(), stream);
    exchange_.finish_combine(stream);
  }

  /// Everything that an exchange writes.
  [[nodiscard]] std::vector<std::byte> results() const {
    std::vector<std::byte> all;
    for (const Buffer<float>* part : {&rows_, &combined_}) {
      const auto bytes = std::as_bytes(std::span(part->data(), static_cast<size_t>(part->size())));
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    all.insert(all.end(), row_scales_.begin(), row_scales_.end());
    return all;
  }

 private:
  static int32_t num_experts(const Communicator& communicator) { return communicator.size() + 2; }
  static bool is_last(const Communicator& communicator) {
    return communicator.size() > 1 && communicator.rank() + 1 == communicator.size();
  }

  bool has_scales_;
  RandomStream random_;
  int64_t num_tokens_;
  ExpertExchange exchange_;
  AllToAllPlan plan_;
  Buffer<float> tokens_;
  Buffer<float> weights_;
  Buffer<std::byte> scales_;
  Buffer<float> rows_;
  Buffer<std::byte> row_scales_;
  Buffer<float> combined_;
  Buffer<std::byte> dispatch_memory_;
  Buffer<std::byte> combine_memory_;
};

/// Dispatch and combine, captured before anything else and launched by turns with what is not
/// captured: the same bits.
inline void check_captured_exchange(Communicator& communicator, bool deduplicates,
                                    bool has_scales) {
  const Stream stream;
  ExchangedBatch batch(communicator, deduplicates, has_scales);
  batch.fill();
  const std::vector<std::byte> before = batch.results();
  RankGraph graph;
  graph.capture(stream.handle, [&] { batch.enqueue(stream.handle); });
  EXPECT_EQ(batch.results(), before) << "a capture moved rows";
  for (int round = 0; round < 3; ++round) {
    batch.fill();
    batch.enqueue(stream.handle);
    communicator.wait("test", stream.handle);
    const std::vector<std::byte> expected = batch.results();
    EXPECT_NE(expected, before);
    batch.clear();
    for (int launch = 0; launch < 2; ++launch) graph.launch(stream.handle);
    communicator.wait("test", stream.handle);
    EXPECT_EQ(batch.results(), expected) << "round " << round;
  }
}

/// An all-to-all of equal counts among gathers and others that are not captured.
inline void check_captured_all_to_all(Communicator& communicator) {
  constexpr int64_t kRowBytes = 12;
  const auto uneven = [](int source, int destination) -> int64_t {
    return (source * 5 + destination * 3) % 11;
  };
  const Stream stream;
  const int64_t num_bytes = communicator.size() * kRowBytes;
  Buffer<std::byte> sent(num_bytes, Backend::kCuda);
  Buffer<std::byte> received(num_bytes, Backend::kCuda);
  RankGraph graph;
  graph.capture(stream.handle, [&] {
    communicator.start_equal_all_to_all(
        "test", std::as_const(sent).matrix(communicator.size(), kRowBytes),
        received.matrix(communicator.size(), kRowBytes), 1, stream.handle);
    communicator.finish_all_to_all(stream.handle);
  });
  for (int round = 0; round < 3; ++round) {
    std::fill(sent.begin(), sent.end(), static_cast<std::byte>(10 * round + communicator.rank()));
    graph.launch(stream.handle);
    check_all_gather(communicator, 9);
    communicator.wait("test", stream.handle);
    check_all_to_all(communicator, uneven, 7, false);
    for (int64_t i = 0; i < num_bytes; ++i) {
      ASSERT_EQ(received[i], static_cast<std::byte>(10 * round + i / kRowBytes));
    }
  }
}

}  // namespace switchyard::test

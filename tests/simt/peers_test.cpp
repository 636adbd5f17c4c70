// Before a peer is timed beside the library, its results are compared.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "bench/peers/peer.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kTokens = 300;
constexpr int32_t kTopK = 4;

/// Gives what it is told to.
class ScriptedPeer : public PeerBatch {
 public:
  explicit ScriptedPeer(const GpuBatches& batches)
      : ids(batches.expert_ids()), weights(batches.host_gate_weights()) {}

  [[nodiscard]] std::vector<PeerCall> calls() const override {
    return {{{"scripted", 0, [](int, StreamView) {}}, "route"}};
  }
  [[nodiscard]] std::vector<int32_t> expert_ids() const override { return ids; }
  [[nodiscard]] std::vector<float> gate_weights() const override { return weights; }

  std::vector<int32_t> ids;
  std::vector<float> weights;
};

class Peers : public testing::Test {
 protected:
  /// Lets a row choose an expert twice, as no other row does.
  void change_row(int64_t row) {
    const auto first = static_cast<size_t>(row * kTopK);
    peer.ids[first] = peer.ids[first + 1];
  }

  GpuBatches batches{softmax_case(16, kTopK), kTokens, DataType::kFloat32, 0, 1};
  ScriptedPeer peer{batches};
};

TEST_F(Peers, MayOrderTheirChoicesOtherwise) {
  for (int64_t row = 0; row < kTokens; ++row) {
    std::reverse(peer.ids.begin() + row * kTopK, peer.ids.begin() + (row + 1) * kTopK);
    std::reverse(peer.weights.begin() + row * kTopK, peer.weights.begin() + (row + 1) * kTopK);
  }
  EXPECT_NO_THROW(check_peer(peer, batches));
}

TEST_F(Peers, MayRoundWeightsAndBreakAFewTiesOtherwise) {
  for (float& weight : peer.weights) weight *= 1.01f;
  for (int64_t row = 0; row < 3; ++row) change_row(row);
  EXPECT_NO_THROW(check_peer(peer, batches));
}

TEST_F(Peers, AreRefusedForOtherExperts) {
  for (int64_t row = 0; row < 4; ++row) change_row(row);
  EXPECT_THROW(check_peer(peer, batches), std::runtime_error);
}

TEST_F(Peers, AreRefusedForOtherWeights) {
  peer.weights[7] *= 1.03f;
  EXPECT_THROW(check_peer(peer, batches), std::runtime_error);
}

TEST_F(Peers, AreRefusedForWeightsThatAreNoNumbers) {
  peer.weights.back() = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(check_peer(peer, batches), std::runtime_error);
}

}  // namespace
}  // namespace switchyard::bench

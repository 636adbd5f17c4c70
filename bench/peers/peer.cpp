#include "bench/peers/peer.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "tests/simt/device_array.h"

namespace switchyard::bench {
namespace {

using Choice = std::pair<int32_t, float>;

/// A row's experts in ascending order, each with its weight.
std::vector<Choice> choices_of(const std::vector<int32_t>& ids, const std::vector<float>& weights,
                               int64_t row, int32_t top_k) {
  std::vector<Choice> choices;
  for (int64_t i = row * top_k; i < (row + 1) * top_k; ++i) {
    choices.emplace_back(ids[static_cast<size_t>(i)], weights[static_cast<size_t>(i)]);
  }
  std::sort(choices.begin(), choices.end());
  return choices;
}

bool have_same_experts(const std::vector<Choice>& a, const std::vector<Choice>& b) {
  return std::equal(a.begin(), a.end(), b.begin(),
                    [](const Choice& x, const Choice& y) { return x.first == y.first; });
}

/// bfloat16 weights differ by up to one in 256.
bool have_same_weights(const std::vector<Choice>& a, const std::vector<Choice>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), [](const Choice& x, const Choice& y) {
    return std::abs(x.second - y.second) <= 0.02f * std::abs(y.second);
  });
}

}  // namespace

void check_peer(const PeerBatch& peer, const GpuBatches& batches) {
  const int32_t top_k = batches.router().router().config().top_k;
  for (const PeerCall& timed : peer.calls()) {
    timed.call.enqueue(0, {});
    test::require_success(cudaDeviceSynchronize());
    const std::vector<int32_t> ids = peer.expert_ids();
    const std::vector<float> weights = peer.gate_weights();
    const int64_t num_rows = static_cast<int64_t>(ids.size()) / top_k;
    int64_t num_others = 0;
    for (int64_t row = 0; row < num_rows; ++row) {
      const auto theirs = choices_of(ids, weights, row, top_k);
      const auto ours = choices_of(batches.expert_ids(), batches.host_gate_weights(), row, top_k);
      if (!have_same_experts(theirs, ours)) {
        ++num_others;
      } else if (!have_same_weights(theirs, ours)) {
        throw std::runtime_error(timed.call.name + ": other weights in row " + std::to_string(row));
      }
    }
    if (num_others * 100 > num_rows) {
      throw std::runtime_error(timed.call.name + ": other experts in " +
                               std::to_string(num_others) + " of " + std::to_string(num_rows) +
                               " rows");
    }
  }
}

}  // namespace switchyard::bench

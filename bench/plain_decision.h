// A memory-aware decision in plain C++, as it is usually first written: what the library is
// measured against.
#pragma once

#include <cstdint>
#include <vector>

#include "switchyard/paging_request.h"

namespace switchyard::bench {

/// Of one layer: scores with a bonus for residents, all of them sorted, weights by a softmax over
/// the chosen; a decay of every affinity score; a list of requests made anew; the resident of the
/// least affinity gives way.
class PlainDecisions {
 public:
  PlainDecisions(int32_t num_experts, int32_t top_k, int32_t fast_slots, float bonus, double decay);

  struct Decision {
    std::vector<int32_t> expert_ids;
    std::vector<float> gate_weights;
    std::vector<PagingRequest> requests;
  };
  /// @param logits  [num_experts]
  Decision decide(const float* logits);

  [[nodiscard]] int64_t hits() const { return hits_; }
  [[nodiscard]] int64_t misses() const { return misses_; }

 private:
  int32_t num_experts_;
  int32_t top_k_;
  int32_t fast_slots_;
  float bonus_;
  double decay_;
  std::vector<double> affinity_;
  std::vector<bool> resident_;
  int32_t num_resident_ = 0;
  int64_t hits_ = 0;
  int64_t misses_ = 0;
};

}  // namespace switchyard::bench

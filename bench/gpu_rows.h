// Rows of hidden states in device memory, and the calls that permute them and bring them back.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bench/gpu_batches.h"

namespace switchyard::bench {

/// bfloat16 rows for a checked batch, which outlives them.
class GpuRows {
 public:
  /// Bytes that permute() must move for a batch: each token's row once, and all of its copies.
  static int64_t bytes(int64_t num_tokens, int32_t top_k, int64_t hidden_size);

  GpuRows(const GpuBatches& batches, int64_t hidden_size, int64_t cache_bytes, int max_sets);
  ~GpuRows();

  /// permute; unpermute; copy, of as many bytes. They refer to this object.
  [[nodiscard]] std::vector<TimedCall> calls() const;

  /// Makes each call once on every set.
  /// @throws std::runtime_error  when a bit of the first rows differs from what must come out.
  void check() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard::bench

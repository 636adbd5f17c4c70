// What a backend implements to permute. Permuter checks shapes first, so backends trust theirs.
#pragma once

#include "switchyard/permutation.h"

namespace switchyard {

class Permuter::Implementation {
 public:
  explicit Implementation(const PermutationConfig& permutation_config, Backend permuter_backend)
      : config(permutation_config), backend(permuter_backend) {}
  Implementation(const Implementation&) = delete;
  Implementation& operator=(const Implementation&) = delete;
  virtual ~Implementation() = default;

  [[nodiscard]] virtual int64_t workspace_bytes(int64_t max_tokens) const = 0;
  virtual void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
                    const Permutation& out, std::span<std::byte> workspace,
                    StreamView stream) const = 0;
  virtual void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
                       MatrixView<std::byte> sorted, StreamView stream) const = 0;
  virtual void unpermute(const Permutation& permutation, ConstTensorView sorted,
                         ConstTensorView gate_weights, TensorView tokens,
                         StreamView stream) const = 0;
  virtual void permute_to(MatrixView<const std::byte> tokens, MatrixView<std::byte* const> rows,
                          StreamView stream) const = 0;
  virtual void unpermute_from(MatrixView<const std::byte* const> rows, DataType dtype,
                              ConstTensorView gate_weights, TensorView tokens,
                              StreamView stream) const = 0;

  const PermutationConfig config;
  const Backend backend;
};

}  // namespace switchyard

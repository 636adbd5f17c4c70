// The permutation tests' way to a device: their host memory is copied there and back.
#pragma once

#include "tests/permutation_case.h"
#include "tests/simt/device_copies.h"

namespace switchyard::test {

class DeviceRoute : public PermuterRoute {
 public:
  explicit DeviceRoute(const PermutationConfig& config) : permuter_(config, Backend::kCuda) {}

  [[nodiscard]] PermutationSizes sizes(int64_t num_tokens) const override {
    return permuter_.sizes(num_tokens);
  }
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    return permuter_.workspace_bytes(max_tokens);
  }
  void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
            const Permutation& out, std::span<std::byte> workspace) const override {
    DeviceCopies copies;
    // On the device its alignment is a condition, so it does not follow the host's.
    const DeviceArray<std::byte> device_workspace(workspace.size());
    permuter_.sort(copies.copy(expert_ids), copies.copy(gate_weights), copy(copies, out),
                   {device_workspace.data(), device_workspace.size()});
    copies.bring_back();
  }
  void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
               MatrixView<std::byte> sorted) const override {
    DeviceCopies copies;
    permuter_.permute(copy(copies, permutation), copies.copy(tokens), copies.copy(sorted));
    copies.bring_back();
  }
  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens) const override {
    DeviceCopies copies;
    permuter_.unpermute(copy(copies, permutation), copies.copy(sorted), copies.copy(gate_weights),
                        copies.copy(tokens));
    copies.bring_back();
  }
  void permute_to(MatrixView<const std::byte> tokens, MatrixView<const int64_t> offsets,
                  std::span<std::byte> memory) const override {
    DeviceCopies copies;
    const RowAddresses rows(offsets, copies.copy(memory.data(), size_of(memory)));
    permuter_.permute_to(copies.copy(tokens), copies.copy(rows.view()));
    copies.bring_back();
  }
  void unpermute_from(MatrixView<const int64_t> offsets, std::span<const std::byte> memory,
                      DataType dtype, ConstTensorView gate_weights,
                      TensorView tokens) const override {
    DeviceCopies copies;
    const RowAddresses rows(offsets, copies.copy(memory.data(), size_of(memory)));
    permuter_.unpermute_from(copies.copy(rows.view()), dtype, copies.copy(gate_weights),
                             copies.copy(tokens));
    copies.bring_back();
  }

 private:
  template <typename Byte>
  static int64_t size_of(std::span<Byte> memory) {
    return static_cast<int64_t>(memory.size());
  }
  static Permutation copy(DeviceCopies& copies, const Permutation& view) {
    return {copies.copy(view.tokens_per_expert), copies.copy(view.expert_offsets),
            copies.copy(view.row_to_assignment), copies.copy(view.assignment_to_row),
            copies.copy(view.block_experts),     copies.copy(view.totals, 1)};
  }

  const Permuter permuter_;
};

}  // namespace switchyard::test

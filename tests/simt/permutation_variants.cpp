// The permutation tests on the device: its kernels on the executor, in several orders.
#include <string>

#include "cuda/permutation.h"
#include "switchyard/errors.h"
#include "tests/permutation_case.h"
#include "tests/simt/device_copies.h"
#include "tests/simt/orders.h"

namespace switchyard::test {
namespace {

class DeviceRoute final : public PermuterRoute {
 public:
  DeviceRoute(const PermutationConfig& config, const simt::Settings& settings)
      : settings_(settings),
        permuter_(cuda::make_cuda_permuter(config)),
        front_door_(config, Backend::kReference) {}

  [[nodiscard]] PermutationSizes sizes(int64_t num_tokens) const override {
    return front_door_.sizes(num_tokens);
  }
  [[nodiscard]] int64_t workspace_bytes(int64_t max_tokens) const override {
    return permuter_->workspace_bytes(max_tokens);
  }
  void sort(MatrixView<const int32_t> expert_ids, ConstTensorView gate_weights,
            const Permutation& out, std::span<std::byte> workspace) const override {
    DeviceCopies copies;
    // On the device its alignment is a condition, so it does not follow the host's.
    const DeviceArray<std::byte> device_workspace(workspace.size());
    permuter_->sort(copies.copy(expert_ids), copies.copy(gate_weights), copy(copies, out),
                    {device_workspace.data(), device_workspace.size()}, {});
    copies.bring_back();
  }
  void permute(const Permutation& permutation, MatrixView<const std::byte> tokens,
               MatrixView<std::byte> sorted) const override {
    DeviceCopies copies;
    permuter_->permute(copy(copies, permutation), copies.copy(tokens), copies.copy(sorted), {});
    copies.bring_back();
  }
  void unpermute(const Permutation& permutation, ConstTensorView sorted,
                 ConstTensorView gate_weights, TensorView tokens) const override {
    DeviceCopies copies;
    permuter_->unpermute(copy(copies, permutation), copies.copy(sorted), copies.copy(gate_weights),
                         copies.copy(tokens), {});
    copies.bring_back();
  }

 private:
  static Permutation copy(DeviceCopies& copies, const Permutation& view) {
    return {copies.copy(view.tokens_per_expert), copies.copy(view.expert_offsets),
            copies.copy(view.row_to_assignment), copies.copy(view.assignment_to_row),
            copies.copy(view.block_experts),     copies.copy(view.totals, 1)};
  }

  const simt::ScopedSettings settings_;
  const std::unique_ptr<Permuter::Implementation> permuter_;
  const Permuter front_door_;
};

std::string name_of_order(const NamedSettings& order) { return "cuda, " + order.name; }

std::vector<PermuterVariant> variants_in(const std::vector<std::string>& orders) {
  std::vector<PermuterVariant> variants;
  for (const NamedSettings& order : kernel_orders()) {
    for (const std::string& wanted : orders) {
      if (order.name == wanted) variants.push_back({name_of_order(order), Backend::kCuda, 0, {}});
    }
  }
  return variants;
}

}  // namespace

const std::vector<PermuterVariant>& permuter_variants() {
  static const std::vector<PermuterVariant> kVariants = variants_in({"Forward", "Random1"});
  return kVariants;
}

const std::vector<PermuterVariant>& sorting_variants() {
  static const std::vector<PermuterVariant> kVariants =
      variants_in({"Forward", "Reverse", "Random1"});
  return kVariants;
}

std::unique_ptr<PermuterRoute> make_route(const PermuterVariant& variant,
                                          const PermutationConfig& config) {
  if (variant.backend != Backend::kCuda) return host_route(variant, config);
  for (const NamedSettings& order : kernel_orders()) {
    if (name_of_order(order) == variant.name) {
      return std::make_unique<DeviceRoute>(config, order.settings);
    }
  }
  throw Unavailable("no order for " + variant.name);
}

}  // namespace switchyard::test

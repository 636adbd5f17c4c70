// What only the device's permutation has: several launches, widths of access, streams, graphs, and
// memory that kernels cannot follow. That its bits are the reference's is for the conformance
// tests, which run on it too.
#include "switchyard/permutation.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "switchyard/errors.h"
#include "tests/permutation_case.h"
#include "tests/simt/device_permutation.h"
#include "tests/simt/fault.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

using Mode = ExpertCapacity::Mode;

constexpr ExpertCapacity kByWeight{
    .mode = Mode::kFactor, .factor = 0.7, .drop_policy = DropPolicy::kWeight};
constexpr ExpertCapacity kByPosition{.mode = Mode::kFactor, .factor = 0.7};

PermuterVariant device_variant() { return sorting_variants().front(); }

PermutationCase random_case(const PermutationConfig& config, int64_t num_tokens, uint64_t seed) {
  RandomStream random(seed);
  return random_case(config, num_tokens, 0, DataType::kFloat32, random);
}

int64_t launches_of_sort(const PermutationCase& batch) {
  const DevicePermutation device(batch);
  const int64_t before = simt::statistics().launches;
  device.sort();
  const int64_t launches = simt::statistics().launches - before;
  EXPECT_EQ(device.download(), sort_guarded(reference_variant(), batch));
  return launches;
}

TEST(CudaPermutation, SmallBatchesTakeOneLaunch) {
  EXPECT_EQ(launches_of_sort(random_case({.num_experts = 256, .top_k = 8}, 1024, 1)), 1);
  EXPECT_EQ(launches_of_sort(random_case({.num_experts = 256, .top_k = 8}, 1025, 2)), 3);
  EXPECT_EQ(launches_of_sort(random_case({.num_experts = 4096, .top_k = 8}, 128, 3)), 1);
  EXPECT_EQ(launches_of_sort(random_case({.num_experts = 4096, .top_k = 8}, 129, 4)), 3);
}

TEST(CudaPermutation, LargePaddingIsFilledByManyBlocks) {
  PermutationConfig config{.num_experts = 256, .top_k = 8, .block_rows = 128};
  EXPECT_EQ(launches_of_sort(random_case(config, 64, 1)), 1);
  config.block_rows = 256;
  EXPECT_EQ(launches_of_sort(random_case(config, 64, 2)), 3);
  config.num_experts = 4096;
  EXPECT_EQ(launches_of_sort(random_case(config, 600, 3)), 3);
}

TEST(CudaPermutation, DroppingByWeightTakesFiveLaunchesOnlyWhereItMayDrop) {
  PermutationConfig config{.num_experts = 16, .top_k = 2, .capacity = kByWeight};
  EXPECT_EQ(launches_of_sort(random_case(config, 50, 1)), 5);
  EXPECT_EQ(launches_of_sort(random_case(config, 9000, 2)), 5);
  config.capacity.factor = 16.0;
  EXPECT_EQ(launches_of_sort(random_case(config, 50, 3)), 1);
  config.num_local_experts = 0;
  EXPECT_EQ(launches_of_sort(random_case(config, 9000, 4)), 3);
}

// More assignments than 256 blocks of 4096 take.
TEST(CudaPermutation, BlocksTakeMoreOnceThereAreMany) {
  for (const ExpertCapacity& capacity : {ExpertCapacity{}, kByPosition}) {
    const PermutationConfig config{.num_experts = 5, .top_k = 128, .capacity = capacity};
    EXPECT_EQ(launches_of_sort(random_case(config, 9000, 1)), 3);
  }
}

TEST(CudaPermutation, AllAssignmentsMayGoToOneExpert) {
  for (const ExpertCapacity& capacity : {ExpertCapacity{}, kByPosition, kByWeight}) {
    for (const int64_t num_tokens : {1, 33, 6000}) {
      auto batch =
          random_case({.num_experts = 300, .top_k = 2, .capacity = capacity}, num_tokens, 7);
      std::fill(batch.ids.begin(), batch.ids.end(), 299);
      launches_of_sort(batch);
    }
  }
}

TEST(CudaPermutation, UnknownIdsCountAsNone) {
  for (const ExpertCapacity& capacity : {ExpertCapacity{}, kByWeight}) {
    for (const int64_t num_tokens : {40, 5000}) {
      auto batch =
          random_case({.num_experts = 9, .top_k = 3, .capacity = capacity, .first_local_expert = 2},
                      num_tokens, 5);
      auto wild = batch;
      RandomStream random(3);
      for (size_t i = 0; i < batch.ids.size(); ++i) {
        if (!random.chance(20)) continue;
        batch.ids[i] = -1;
        wild.ids[i] = one_of(random, {-2, 9, 10, 4096, std::numeric_limits<int32_t>::max(),
                                      std::numeric_limits<int32_t>::min()});
      }
      EXPECT_EQ(sort_guarded(device_variant(), wild), sort_guarded(reference_variant(), batch));
    }
  }
}

// A dependent launch on such a device is refused by the executor.
TEST(CudaPermutation, DevicesWithoutDependentLaunchesSortToo) {
  const simt::ScopedSettings scope;
  simt::settings().compute_capability = 80;
  EXPECT_EQ(launches_of_sort(random_case({.num_experts = 64, .top_k = 8}, 2000, 1)), 3);
}

/// How many elements the rows start behind a 16-byte boundary, and how many lie between them.
struct Placement {
  int64_t offset, padding;
};

/// Rows of `row_bytes` from tokens that start `offset` bytes behind a 16-byte boundary.
std::vector<std::byte> permuted(const PermuterVariant& variant, const PermutationCase& batch,
                                int64_t row_bytes, int64_t padding, int64_t offset) {
  const auto route = make_route(variant, batch.config);
  GuardedPermutation out(*route, batch);
  route->sort(batch.expert_ids(), batch.gate_weights(), out.view(), out.workspace());
  const int64_t stride = row_bytes + padding;
  std::vector<std::byte> memory(static_cast<size_t>(batch.num_tokens * stride + offset));
  RandomStream random(11);
  for (std::byte& byte : memory) byte = static_cast<std::byte>(random.bits32());
  Guarded<std::byte> sorted(route->sizes(batch.num_tokens).num_rows, row_bytes, stride);
  route->permute(out.view(), {memory.data() + offset, batch.num_tokens, row_bytes, stride},
                 sorted.matrix());
  EXPECT_TRUE(sorted.intact());
  return sorted.dense();
}

TEST(CudaPermutation, EveryWidthOfAccessMovesTheReferencesBytes) {
  const auto batch = random_case({.num_experts = 5,
                                  .top_k = 3,
                                  .block_rows = 4,
                                  .capacity = kByPosition,
                                  .first_local_expert = 1},
                                 9, 1);
  for (const int64_t unit : {16, 8, 4, 2, 1}) {
    for (const int64_t units : {1, 3, 127, 129, 300}) {
      for (const auto& [offset, padding] : {Placement{0, 0}, {0, 1}, {1, 0}, {3, 2}}) {
        EXPECT_EQ(permuted(device_variant(), batch, units * unit, padding * unit, offset * unit),
                  permuted(reference_variant(), batch, units * unit, padding * unit, offset * unit))
            << units << " units of " << unit << " bytes";
      }
    }
  }
}

TEST(CudaPermutation, PaddingOfEveryBlockSizeIsCleared) {
  for (const int32_t block_rows : {2, 8, 9, 10, 17, 100, 256}) {
    const auto batch = random_case({.num_experts = 6, .top_k = 2, .block_rows = block_rows}, 70, 2);
    EXPECT_EQ(permuted(device_variant(), batch, 48, 0, 0),
              permuted(reference_variant(), batch, 48, 0, 0))
        << block_rows << " rows a block";
  }
}

template <typename T>
T random_element(RandomStream& random) {
  if constexpr (std::is_same_v<T, float>) {
    return static_cast<float>(random.normal());
  } else {
    return {static_cast<uint16_t>(random.bits32())};
  }
}

/// The memory that combined rows are in, gaps included.
template <typename In, typename Out>
std::vector<std::byte> combined(const PermuterVariant& variant, const PermutationCase& batch,
                                int64_t hidden_size, Placement in, Placement out) {
  const auto route = make_route(variant, batch.config);
  GuardedPermutation permutation(*route, batch);
  route->sort(batch.expert_ids(), batch.gate_weights(), permutation.view(),
              permutation.workspace());
  const int64_t rows = route->sizes(batch.num_tokens).num_rows;
  const int64_t in_stride = hidden_size + in.padding;
  const int64_t out_stride = hidden_size + out.padding;
  std::vector<In> from(static_cast<size_t>(rows * in_stride + in.offset));
  RandomStream random(5);
  for (In& element : from) element = random_element<In>(random);
  std::vector<Out> to(static_cast<size_t>(batch.num_tokens * out_stride + out.offset));
  route->unpermute(
      permutation.view(),
      MatrixView<const In>(from.data() + in.offset, rows, hidden_size, in_stride),
      batch.gate_weights(),
      MatrixView<Out>(to.data() + out.offset, batch.num_tokens, hidden_size, out_stride));
  const auto bytes = std::as_bytes(std::span(to));
  return {bytes.begin(), bytes.end()};
}

template <typename In, typename Out>
void expect_combines_unaligned_rows() {
  constexpr Placement kPlacements[] = {{0, 0}, {1, 0}, {0, 1}, {4, 4}, {8, 8}};
  const auto batch = random_case({.num_experts = 5, .top_k = 33}, 3, 3);
  for (const int64_t hidden_size : {8, 23, 24, 1032}) {
    for (const Placement& in : kPlacements) {
      for (const Placement& out : kPlacements) {
        EXPECT_EQ((combined<In, Out>(device_variant(), batch, hidden_size, in, out)),
                  (combined<In, Out>(reference_variant(), batch, hidden_size, in, out)))
            << hidden_size << " columns, offsets " << in.offset << ' ' << out.offset << ", padding "
            << in.padding << ' ' << out.padding;
      }
    }
  }
}

TEST(CudaPermutation, UnalignedRowsCombineToTheReferencesBits) {
  expect_combines_unaligned_rows<float, float>();
  expect_combines_unaligned_rows<float, BFloat16>();
  expect_combines_unaligned_rows<Float16, Float16>();
  expect_combines_unaligned_rows<BFloat16, float>();
  expect_combines_unaligned_rows<BFloat16, BFloat16>();
}

TEST(CudaPermutation, Contract7_AGraphSortsWhatIsThereWhenItRuns) {
  constexpr int64_t kHidden = 24;
  for (const int64_t num_tokens : {20, 3000}) {
    for (const ExpertCapacity& capacity : {ExpertCapacity{}, kByPosition, kByWeight}) {
      const PermutationConfig config{
          .num_experts = 7, .top_k = 4, .block_rows = 8, .capacity = capacity};
      DevicePermutation device(random_case(config, num_tokens, 1));
      const std::vector<float> tokens(static_cast<size_t>(num_tokens * kHidden), 1.0f);
      const DeviceArray<float> from(tokens);
      const DeviceArray<float> sorted(static_cast<size_t>(device.sizes.num_rows * kHidden));
      const DeviceArray<float> to(tokens.size());
      const int64_t allocations = simt::num_device_allocations();

      const CapturedGraph graph([&](cudaStream_t stream) {
        device.sort(stream);
        device.permuter->permute(
            device.view(),
            {reinterpret_cast<const std::byte*>(from.data()), num_tokens, kHidden * 4},
            {reinterpret_cast<std::byte*>(sorted.data()), device.sizes.num_rows, kHidden * 4},
            stream);
        device.permuter->unpermute(
            device.view(), MatrixView<const float>(sorted.data(), device.sizes.num_rows, kHidden),
            {}, MatrixView<float>(to.data(), num_tokens, kHidden), stream);
      });
      EXPECT_EQ(simt::num_device_allocations(), allocations);

      for (uint64_t seed = 2; seed <= 3; ++seed) {
        const auto batch = random_case(config, num_tokens, seed);
        device.ids.upload(batch.ids);
        device.weights.upload(batch.weights);
        graph.replay();
        const SortedBatch expected = sort_guarded(reference_variant(), batch);
        ASSERT_EQ(device.download(), expected) << "seed " << seed;
        const std::vector<float> sums = to.download();
        for (size_t token = 0; token < static_cast<size_t>(num_tokens); ++token) {
          int rows = 0;
          for (size_t i = 0; i < 4; ++i) rows += expected.assignment_to_row[token * 4 + i] >= 0;
          ASSERT_EQ(sums[token * kHidden + kHidden - 1], static_cast<float>(rows));
        }
      }
    }
  }
}

TEST(CudaPermutation, Contract7_AGraphMovesRowsToAddressesThatAreThereWhenItRuns) {
  constexpr int64_t kTokens = 40;
  constexpr int64_t kHidden = 24;
  const Permuter permuter({.num_experts = 4, .top_k = 2}, Backend::kCuda);
  const DeviceArray<float> from(std::vector<float>(kTokens * kHidden, 1.0f));
  const DeviceArray<float> memory(std::vector<float>(kTokens * 2 * kHidden, 0.0f));
  const DeviceArray<float> to(kTokens * kHidden);
  DeviceArray<std::byte*> rows(kTokens * 2);
  const int64_t allocations = simt::num_device_allocations();
  const int64_t launches = simt::statistics().launches;
  const CapturedGraph graph([&](cudaStream_t stream) {
    permuter.permute_to({reinterpret_cast<const std::byte*>(from.data()), kTokens, kHidden * 4},
                        {rows.data(), kTokens, 2}, stream);
    permuter.unpermute_from(MatrixView<const std::byte* const>(rows.data(), kTokens, 2),
                            DataType::kFloat32, {}, MatrixView<float>(to.data(), kTokens, kHidden),
                            stream);
  });
  EXPECT_EQ(simt::num_device_allocations(), allocations);
  for (int64_t shift = 0; shift < 3; ++shift) {
    std::vector<std::byte*> addresses(kTokens * 2, nullptr);
    std::vector<float> expected;
    for (int64_t token = 0; token < kTokens; ++token) {
      for (int64_t slot = 0; slot < 2; ++slot) {
        if ((token + slot + shift) % 3 == 0) continue;
        const int64_t row = (2 * token + slot + shift) % (2 * kTokens);
        addresses[static_cast<size_t>(2 * token + slot)] =
            reinterpret_cast<std::byte*>(memory.data() + row * kHidden);
      }
      const bool one_has_none = (token + shift) % 3 == 0 || (token + 1 + shift) % 3 == 0;
      expected.insert(expected.end(), kHidden, one_has_none ? 1.0f : 2.0f);
    }
    rows.upload(addresses);
    graph.replay();
    EXPECT_EQ(to.download(), expected);
  }
  EXPECT_EQ(simt::statistics().launches - launches, 6);
}

TEST(CudaPermutation, StreamsDoNotDisturbEachOther) {
  for (const simt::StreamOrder order : {simt::StreamOrder::kDeferred, simt::StreamOrder::kRandom}) {
    const simt::ScopedSettings scope;
    simt::settings().stream_order = order;
    const PermutationConfig config{
        .num_experts = 40, .top_k = 6, .block_rows = 4, .capacity = kByWeight};
    const auto first = random_case(config, 2000, 1);
    const auto second = random_case(config, 1500, 2);
    const DevicePermutation on_first(first);
    const DevicePermutation on_second(second);
    const Stream streams[2];
    for (int round = 0; round < 3; ++round) {
      on_first.sort(streams[0].handle);
      on_second.sort(streams[1].handle);
    }
    require_success(cudaDeviceSynchronize());
    EXPECT_EQ(on_first.download(), sort_guarded(reference_variant(), first));
    EXPECT_EQ(on_second.download(), sort_guarded(reference_variant(), second));
  }
}

std::string refusal_of(const std::function<void()>& call) {
  const int64_t before = simt::statistics().launches;
  std::string text = "accepted";
  try {
    call();
  } catch (const InvalidArgument& error) {
    text = error.what();
  }
  EXPECT_EQ(simt::statistics().launches - before, 0) << text;
  return text;
}

class CudaPermutationRefusal : public testing::Test {
 protected:
  std::string refusal_of_sort(const std::function<void(Permutation&)>& change) const {
    Permutation out = device_.view();
    change(out);
    return refusal_of([&] {
      device_.permuter->sort(device_.expert_ids(), device_.gate_weights(), out,
                             device_.workspace_span(), {});
    });
  }

  const PermutationCase batch_ =
      make_case({.num_experts = 3, .top_k = 2, .capacity = kByWeight}, {{0, 1}, {2, -1}});
  const DevicePermutation device_{batch_};
  int64_t on_host_[8] = {};
};

TEST_F(CudaPermutationRefusal, Contract10_HostMemoryIsNamed) {
  const auto host = [this](const char* name, const std::function<void(Permutation&)>& change) {
    EXPECT_EQ(refusal_of_sort(change),
              std::string(name) + " is host memory, must be memory of device 0");
  };
  host("tokens_per_expert", [this](Permutation& out) { out.tokens_per_expert.data = on_host_; });
  host("expert_offsets", [this](Permutation& out) { out.expert_offsets.data = on_host_; });
  host("row_to_assignment", [this](Permutation& out) { out.row_to_assignment.data = on_host_; });
  host("assignment_to_row", [this](Permutation& out) { out.assignment_to_row.data = on_host_; });
  host("block_experts",
       [this](Permutation& out) { out.block_experts.data = reinterpret_cast<int32_t*>(on_host_); });
  PermutationTotals totals;
  host("totals", [&](Permutation& out) { out.totals = &totals; });
}

TEST_F(CudaPermutationRefusal, Contract10_HostInputsAndWorkspaceAreNamed) {
  const Permuter::Implementation& permuter = *device_.permuter;
  std::vector<std::byte> workspace(device_.workspace.size());
  EXPECT_EQ(refusal_of([&] {
              permuter.sort(batch_.expert_ids(), device_.gate_weights(), device_.view(),
                            device_.workspace_span(), {});
            }),
            "expert_ids is host memory, must be memory of device 0");
  EXPECT_EQ(refusal_of([&] {
              permuter.sort(device_.expert_ids(), batch_.gate_weights(), device_.view(),
                            device_.workspace_span(), {});
            }),
            "gate_weights is host memory, must be memory of device 0");
  EXPECT_EQ(refusal_of([&] {
              permuter.sort(device_.expert_ids(), device_.gate_weights(), device_.view(), workspace,
                            {});
            }),
            "workspace is host memory, must be memory of device 0");
}

TEST_F(CudaPermutationRefusal, Contract10_MisalignedMemoryIsNamed) {
  const auto shift = [](auto*& pointer) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(
        reinterpret_cast<std::byte*>(pointer) + 1);
  };
  EXPECT_EQ(refusal_of_sort([&](Permutation& out) { shift(out.expert_offsets.data); }),
            "expert_offsets is not aligned to 8 bytes");
  EXPECT_EQ(refusal_of_sort([&](Permutation& out) { shift(out.block_experts.data); }),
            "block_experts is not aligned to 4 bytes");
  EXPECT_EQ(refusal_of([&] {
              device_.permuter->sort(device_.expert_ids(), device_.gate_weights(), device_.view(),
                                     device_.workspace_span().subspan(8), {});
            }),
            "workspace is not aligned to 16 bytes");
}

TEST_F(CudaPermutationRefusal, Contract10_MovesNameTheirMemory) {
  const Permuter::Implementation& permuter = *device_.permuter;
  const DeviceArray<std::byte> rows(4096);
  const std::vector<std::byte> host(4096);
  const MatrixView<const std::byte> tokens(rows.data(), 2, 16);
  const MatrixView<std::byte> sorted(rows.data() + 64, device_.sizes.num_rows, 16);
  EXPECT_EQ(refusal_of([&] {
              permuter.permute(device_.view(), {host.data(), 2, 16}, sorted, {});
            }),
            "tokens is host memory, must be memory of device 0");
  EXPECT_EQ(refusal_of([&] {
              permuter.permute(device_.view(), tokens,
                               {const_cast<std::byte*>(host.data()), device_.sizes.num_rows, 16},
                               {});
            }),
            "sorted is host memory, must be memory of device 0");
  const ConstTensorView answers{rows.data(), DataType::kFloat32, device_.sizes.num_rows, 4, 4};
  const TensorView combined{rows.data() + 1024, DataType::kBFloat16, 2, 4, 4};
  EXPECT_EQ(refusal_of([&] {
              permuter.unpermute(device_.view(),
                                 {host.data(), DataType::kFloat32, device_.sizes.num_rows, 4, 4},
                                 {}, combined, {});
            }),
            "sorted is host memory, must be memory of device 0");
  EXPECT_EQ(refusal_of([&] {
              permuter.unpermute(device_.view(), answers, {},
                                 {rows.data() + 1025, DataType::kBFloat16, 2, 4, 4}, {});
            }),
            "tokens is not aligned to 2 bytes");
  EXPECT_EQ(refusal_of([&] {
              permuter.unpermute(device_.view(), answers, batch_.gate_weights(), combined, {});
            }),
            "gate_weights is host memory, must be memory of device 0");
}

TEST_F(CudaPermutationRefusal, Contract10_MovesByAddressNameTheirMemory) {
  const Permuter::Implementation& permuter = *device_.permuter;
  const DeviceArray<std::byte> memory(4096);
  const DeviceArray<std::byte*> on_device(5);
  std::byte* on_host[4] = {};
  const MatrixView<const std::byte> tokens(memory.data(), 2, 16);
  const MatrixView<std::byte* const> rows(on_device.data(), 2, 2);
  const MatrixView<const std::byte* const> sources(on_device.data(), 2, 2);
  const TensorView combined{memory.data() + 1024, DataType::kBFloat16, 2, 4, 4};
  const std::vector<std::byte> host(64);
  EXPECT_EQ(refusal_of([&] {
              permuter.permute_to({host.data(), 2, 16}, rows, {});
            }),
            "tokens is host memory, must be memory of device 0");
  EXPECT_EQ(refusal_of([&] {
              permuter.permute_to(tokens, {on_host, 2, 2}, {});
            }),
            "rows is host memory, must be memory of device 0");
  auto* const misaligned =
      reinterpret_cast<std::byte**>(reinterpret_cast<std::byte*>(on_device.data()) + 4);
  EXPECT_EQ(refusal_of([&] {
              permuter.permute_to(tokens, {misaligned, 2, 2}, {});
            }),
            "rows is not aligned to 8 bytes");
  EXPECT_EQ(refusal_of([&] {
              permuter.unpermute_from({on_host, 2, 2}, DataType::kFloat32, {}, combined, {});
            }),
            "rows is host memory, must be memory of device 0");
  EXPECT_EQ(refusal_of([&] {
              permuter.unpermute_from(sources, DataType::kFloat32, batch_.gate_weights(), combined,
                                      {});
            }),
            "gate_weights is host memory, must be memory of device 0");
  EXPECT_EQ(refusal_of([&] {
              permuter.unpermute_from(sources, DataType::kFloat32, {},
                                      {memory.data() + 1025, DataType::kBFloat16, 2, 4, 4}, {});
            }),
            "tokens is not aligned to 2 bytes");
}

TEST(CudaPermuterConstruction, NeedsADevice) {
  const simt::ScopedSettings scope;
  simt::settings().num_devices = 0;
  EXPECT_THROW(cuda::make_cuda_permuter({.num_experts = 1, .top_k = 1}), Unavailable);
}

}  // namespace
}  // namespace switchyard::test

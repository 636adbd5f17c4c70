// Every planted mistake is caught by the builds that can see it, and nothing correct is reported.
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tests/simt/address_sanitizer.h"
#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/fault_kernels.h"
#include "tests/simt/orders.h"

namespace switchyard::test {
namespace {

using simt::FaultKind;

/// How a build sees a mistake.
struct Sight {
  enum class How { kNot, kFault, kResult, kDeath } how = How::kNot;
  FaultKind kind{};
};

constexpr Sight kUnseen{};
constexpr Sight kWrongResult{Sight::How::kResult, {}};
constexpr Sight kSanitizer{Sight::How::kDeath, {}};
constexpr Sight fault(FaultKind kind) { return {Sight::How::kFault, kind}; }

struct PlantedFault {
  std::string kernel;
  Sight plain;
  Sight address;  ///< AddressSanitizer and UndefinedBehaviorSanitizer
  Sight races;
  FaultLaunch launch;
  FaultArguments arguments;
  std::vector<int> want;  ///< of the first elements of `out`, in a correct run
  size_t out_size = 100;
};

void PrintTo(const PlantedFault& planted, std::ostream* out) { *out << planted.kernel; }

Sight expected(const PlantedFault& planted) {
  if (simt::sees_accesses()) return planted.races;
  return simt::kHasAddressSanitizer ? planted.address : planted.plain;
}

std::vector<int> integers(int count, const std::function<int(int)>& value) {
  std::vector<int> values;
  for (int i = 0; i < count; ++i) values.push_back(value(i));
  return values;
}

std::vector<PlantedFault> planted_faults() {
  constexpr int kThreads = 64;
  const Sight divergence = fault(FaultKind::kBarrierDivergence);
  const Sight mismatch = fault(FaultKind::kCollectiveMismatch);
  const Sight bounds = fault(FaultKind::kSharedBounds);
  const Sight race = fault(FaultKind::kRace);
  const Sight uninitialized = fault(FaultKind::kUninitialized);
  const Sight invalid = fault(FaultKind::kInvalidAccess);
  const Sight misaligned = fault(FaultKind::kMisaligned);
  const Sight inactive = fault(FaultKind::kInactiveLane);
  const Sight deadlock = fault(FaultKind::kDeadlock);
  const Sight livelock = fault(FaultKind::kLivelock);
  const Sight limit = fault(FaultKind::kSharedLimit);
  const Sight overflow = fault(FaultKind::kStackOverflow);
  const Sight trapped = fault(FaultKind::kTrap);
  const FaultLaunch warp{.num_threads = 32};
  const auto reused = [](int i) { return 6000 + 4 * (kThreads - 1 - i); };
  return {
      {"no_barrier",
       kWrongResult,
       kWrongResult,
       uninitialized,
       {},
       {},
       integers(kThreads, [](int i) { return (i + 1) % kThreads * ((i + 1) % kThreads); })},
      {"no_barrier_before_lower",
       kWrongResult,
       kWrongResult,
       race,
       {},
       {},
       integers(kThreads, [](int i) { return i > 0 ? (i - 1) * (i - 1) : 0; })},
      {"no_barrier_before_reuse",
       kWrongResult,
       kWrongResult,
       race,
       {},
       {},
       integers(kThreads, reused)},
      {"exit_before_barrier", divergence, divergence, divergence, {}, {.size = 50}, {}},
      {"two_barriers", divergence, divergence, divergence, {}, {}, {}},
      {"unequal_barriers", divergence, divergence, divergence, {}, {}, {}},
      {"beyond_shared", bounds, kSanitizer, invalid, {}, {}, {}},
      {"beyond_dynamic", bounds, kSanitizer, invalid, {.shared_bytes = 4 * kThreads}, {}, {}},
      {"beyond_shared_pointer", bounds, kSanitizer, invalid, {}, {}, {}},
      {"structure_race", kUnseen, kUnseen, race, {}, {}, {}},
      {"uninitialized_shared",
       kWrongResult,
       kWrongResult,
       uninitialized,
       {},
       {},
       integers(kThreads, [](int i) { return i > 0 ? 2 : 1; })},
      {"large_shared", limit, limit, limit, {}, {}, {}},
      {"mask_without_self", mismatch, mismatch, mismatch, warp, {}, {}},
      {"mask_of_absent_lanes", mismatch, mismatch, mismatch, warp, {}, {}},
      {"lanes_at_different_shuffles", mismatch, mismatch, mismatch, warp, {}, {}},
      {"shuffle_from_absent_lane", inactive, inactive, inactive, warp, {}, {}},
      {"mask_of_exited_lanes", mismatch, mismatch, mismatch, warp, {.size = 20}, {}},
      {"warp_and_block_wait", deadlock, deadlock, deadlock, warp, {}, {}},
      {"no_warp_barrier",
       kWrongResult,
       kWrongResult,
       uninitialized,
       warp,
       {},
       integers(32, [](int i) { return i ^ 1; })},
      {"shuffle_for_barrier", kUnseen, kUnseen, race, warp, {}, {}},
      // Of 100 elements; the end of the memory's pages is 28 further on.
      {"beyond_allocation", invalid, kSanitizer, invalid, {.num_blocks = 2}, {}, {}},
      {"beyond_allocation", invalid, invalid, invalid, {}, {.size = 1000}, {}},
      {"null_pointer", invalid, kSanitizer, invalid, {}, {}, {}},
      {"misaligned_vector", misaligned, misaligned, misaligned, {.num_threads = 1}, {}, {}},
      {"misaligned_atomic", misaligned, misaligned, misaligned, {}, {}, {}},
      {"lost_update", kUnseen, kUnseen, race, {}, {}, {}},
      {"unordered_blocks", kUnseen, kUnseen, race, {.num_blocks = 4, .num_threads = 1}, {}, {}},
      {"waits_for_block",
       livelock,
       livelock,
       livelock,
       {.num_blocks = 2, .num_threads = 1},
       {},
       {}},
      {"ticket_without_fence", kUnseen, kUnseen, race, {.num_blocks = 4}, {}, {}, 1 + 4 * kThreads},
      {"read_before_wait", kUnseen, kUnseen, race, {}, {}, {}},
      {"write_before_wait", kUnseen, kUnseen, race, {}, {}, {}},
      {"add_before_wait", kUnseen, kUnseen, race, {}, {}, {}},
      {"read_beside_two", kUnseen, kUnseen, race, {}, {}, {}},
      {"deep_recursion", overflow, overflow, overflow, {.num_threads = 1}, {.size = 4000}, {}},
      {"trap", trapped, trapped, trapped, {}, {}, {}},
  };
}

class SimtFaults : public testing::TestWithParam<PlantedFault> {
 protected:
  SimtFaults() {
    simt::reset();
    simt::settings().max_idle_atomics = 100'000;
  }
  ~SimtFaults() override { simt::reset(); }

  /// Runs the kernel on zeros; whether the result was right, or nothing after a fault.
  static std::optional<bool> run(const PlantedFault& planted) {
    const DeviceArray<int> out(std::vector<int>(planted.out_size));
    const DeviceArray<int> in(std::vector<int>(100));
    const DeviceArray<unsigned> ticket(std::vector<unsigned>(1));
    FaultArguments arguments = planted.arguments;
    arguments.out = out.data();
    arguments.in = planted.kernel == "null_pointer" ? nullptr : in.data();
    arguments.ticket = ticket.data();
    if (launch_fault(planted.kernel, planted.launch, arguments) != cudaSuccess) return {};
    if (cudaDeviceSynchronize() != cudaSuccess) return {};
    std::vector<int> got = out.download();
    got.resize(planted.want.size());
    return got == planted.want;
  }

  simt::ScopedSettings scope_;
};

INSTANTIATE_TEST_SUITE_P(Planted, SimtFaults, testing::ValuesIn(planted_faults()),
                         [](const auto& planted) {
                           return planted.param.kernel + std::to_string(planted.index);
                         });

TEST_P(SimtFaults, AreCaught) {
  const PlantedFault& planted = GetParam();
  const Sight sight = expected(planted);
  if (sight.how == Sight::How::kDeath) {
    EXPECT_DEATH(run(planted), "AddressSanitizer|runtime error");
    return;
  }
  const std::optional<bool> right = run(planted);
  if (sight.how == Sight::How::kNot) {
    ASSERT_TRUE(right.has_value()) << simt::last_fault()->what();
    return;
  }
  if (sight.how == Sight::How::kFault) {
    ASSERT_FALSE(right.has_value());
    ASSERT_TRUE(simt::last_fault().has_value());
    const std::string text = simt::last_fault()->what();
    EXPECT_EQ(simt::last_fault()->kind(), sight.kind) << text;
    EXPECT_NE(text.find(planted.kernel), std::string::npos) << text;
    EXPECT_EQ(text, cudaGetErrorString(cudaGetLastError()));
    return;
  }
  // Some order shows it.
  bool ever_wrong = !right.value_or(true);
  for (const NamedSettings& order : kernel_orders()) {
    simt::settings() = order.settings;
    ever_wrong = ever_wrong || !run(planted).value_or(true);
  }
  EXPECT_TRUE(ever_wrong);
}

class SimtCorrectKernels : public testing::TestWithParam<NamedSettings> {
 protected:
  SimtCorrectKernels() : scope_(GetParam().settings) { simt::reset(); }

  simt::ScopedSettings scope_;
};

INSTANTIATE_TEST_SUITE_P(Orders, SimtCorrectKernels, testing::ValuesIn(kernel_orders()),
                         [](const auto& order) { return order.param.name; });

TEST_P(SimtCorrectKernels, MayOrderBlocksByFenceAndTicket) {
  const DeviceArray<int> out(std::vector<int>(1 + 8 * 64));
  const DeviceArray<unsigned> ticket(std::vector<unsigned>(1));
  require_success(launch_fault("ticket_with_fence", {.num_blocks = 8},
                               {.out = out.data(), .ticket = ticket.data()}));
  EXPECT_EQ(out.download()[0], 8 * 64);
}

TEST_P(SimtCorrectKernels, MayOrderLanesByWarpBarriers) {
  const DeviceArray<int> out(64);
  require_success(launch_fault("warp_barriers", {}, {.out = out.data()}));
  const std::vector<int> got = out.download();
  for (int i = 0; i < 64; ++i) EXPECT_EQ(got[static_cast<size_t>(i)], 2 + (i ^ 1));
}

TEST_P(SimtCorrectKernels, MayStartBesideTheLaunchBefore) {
  for (const char* chain : {"read_after_wait", "pass_on_after_wait", "pass_on_at_once"}) {
    const DeviceArray<int> out(128);
    require_success(launch_fault(chain, {.num_blocks = 2}, {.out = out.data()}));
    EXPECT_EQ(out.download(), std::vector<int>(128, 2)) << chain;
  }
}

class SimtMemory : public testing::Test {
 protected:
  SimtMemory() { simt::reset(); }
  ~SimtMemory() override { simt::reset(); }
};

TEST_F(SimtMemory, HostCodeCannotTouchDeviceMemory) {
  const DeviceArray<int> out(std::vector<int>(100));
  EXPECT_DEATH(static_cast<void>(*const_cast<volatile int*>(out.data() + 3)),
               "host code touches device memory: byte 12 of a device allocation of 400 bytes");
}

TEST_F(SimtMemory, FreedMemoryIsNotTouchedAgain) {
  void* freed = nullptr;
  require_success(cudaMalloc(&freed, 400));
  require_success(cudaMemset(freed, 0, 400));
  require_success(cudaFree(freed));
  const DeviceArray<int> out(64);
  const FaultArguments arguments{.out = out.data(), .in = static_cast<int*>(freed)};
  EXPECT_EQ(launch_fault("copy", {}, arguments), cudaErrorIllegalAddress);
  EXPECT_EQ(simt::last_fault()->kind(), FaultKind::kInvalidAccess);
}

TEST_F(SimtMemory, KernelsCannotTouchOrdinaryHostMemory) {
  if (!simt::sees_accesses()) GTEST_SKIP() << "only instrumented kernels tell";
  const std::vector<int> host(64, 3);
  const DeviceArray<int> out(64);
  EXPECT_EQ(launch_fault("copy", {}, {.out = out.data(), .in = host.data()}),
            cudaErrorIllegalAddress);
}

TEST_F(SimtMemory, KernelsMayTouchPinnedMemory) {
  void* pinned = nullptr;
  require_success(cudaMallocHost(&pinned, 400));
  auto* values = static_cast<int*>(pinned);
  for (int i = 0; i < 100; ++i) values[i] = i;
  const DeviceArray<int> out(64);
  require_success(launch_fault("copy", {}, {.out = out.data(), .in = values}));
  EXPECT_EQ(out.download()[63], 63);
  require_success(cudaFreeHost(pinned));
}

TEST_F(SimtMemory, DeviceMemoryIsWrittenBeforeItIsRead) {
  if (!simt::sees_accesses()) GTEST_SKIP() << "only instrumented kernels tell";
  const DeviceArray<int> in(64);
  const DeviceArray<int> out(64);
  EXPECT_EQ(launch_fault("copy", {}, {.out = out.data(), .in = in.data()}), cudaErrorLaunchFailure);
  EXPECT_EQ(simt::last_fault()->kind(), FaultKind::kUninitialized);
}

TEST_F(SimtMemory, FaultsNameTheSourceLine) {
  const DeviceArray<int> out(64);
  EXPECT_EQ(launch_fault("two_barriers", {}, {.out = out.data()}), cudaErrorLaunchFailure);
  const std::string text = simt::last_fault()->what();
  EXPECT_NE(text.find("fault_kernels.cu:"), std::string::npos) << text;
  EXPECT_NE(text.find("block (0,0,0)"), std::string::npos) << text;
  EXPECT_NE(text.find("thread (32,0,0) [warp 1 lane 0]"), std::string::npos) << text;
}

}  // namespace
}  // namespace switchyard::test

// The runtime stand-in: memory, launches, errors and what it says of its device.
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/fault_kernels.h"
#include "tests/simt/intrinsics_kernels.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

class SimtRuntime : public testing::Test {
 protected:
  SimtRuntime() { simt::reset(); }
  ~SimtRuntime() override { simt::reset(); }

  simt::ScopedSettings scope_;
};

TEST_F(SimtRuntime, AllocationsAreAlignedAndCounted) {
  const int64_t before = simt::num_device_allocations();
  {
    const DeviceArray<char> first(1);
    const DeviceArray<char> second(5000);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first.data()) % 256, 0u);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(second.data()) % 256, 0u);
    EXPECT_EQ(simt::num_device_allocations(), before + 2);
  }
  EXPECT_EQ(simt::num_device_allocations(), before);
}

TEST_F(SimtRuntime, MemoryRunsOut) {
  simt::settings().device_memory_bytes = 1 << 20;
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, 2 << 20), cudaErrorMemoryAllocation);
  EXPECT_EQ(memory, nullptr);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

TEST_F(SimtRuntime, NothingIsAllocatedForNoBytes) {
  void* memory = &memory;
  require_success(cudaMalloc(&memory, 0));
  EXPECT_EQ(memory, nullptr);
  require_success(cudaFree(nullptr));
}

TEST_F(SimtRuntime, OnlyAllocationsAreFreed) {
  const DeviceArray<int> memory(10);
  EXPECT_EQ(cudaFree(memory.data() + 1), cudaErrorInvalidValue);
  int on_host = 0;
  EXPECT_EQ(cudaFree(&on_host), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFreeHost(&on_host), cudaErrorInvalidValue);
}

TEST_F(SimtRuntime, CopiesGoWhereTheirDirectionSays) {
  const DeviceArray<int> memory(std::vector<int>(10));
  const DeviceArray<int> other(10);
  std::vector<int> host(10, 4);
  const auto copy = [](void* to, const void* from, cudaMemcpyKind kind) {
    return cudaMemcpy(to, from, 40, kind);
  };
  EXPECT_EQ(copy(memory.data(), host.data(), cudaMemcpyHostToDevice), cudaSuccess);
  EXPECT_EQ(copy(other.data(), memory.data(), cudaMemcpyDeviceToDevice), cudaSuccess);
  EXPECT_EQ(other.download(), host);
  EXPECT_EQ(copy(other.data(), memory.data(), cudaMemcpyDefault), cudaSuccess);
  EXPECT_EQ(copy(memory.data(), other.data(), cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(host.data(), memory.data(), cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(copy(memory.data() + 1, host.data(), cudaMemcpyHostToDevice), cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemset(memory.data(), 0, 41), cudaErrorInvalidValue);
}

TEST_F(SimtRuntime, PointersTellWhatTheyPointTo) {
  const DeviceArray<int> memory(10);
  int on_host = 0;
  void* pinned = nullptr;
  require_success(cudaMallocHost(&pinned, 10));
  cudaPointerAttributes attributes{};
  require_success(cudaPointerGetAttributes(&attributes, memory.data() + 9));
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  require_success(cudaPointerGetAttributes(&attributes, pinned));
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  require_success(cudaPointerGetAttributes(&attributes, &on_host));
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
  require_success(cudaFreeHost(pinned));
}

TEST_F(SimtRuntime, BadLaunchesAreRefusedAndForgotten) {
  const DeviceArray<BarrierResults> out(1);
  EXPECT_EQ(launch_barriers(dim3(1025), out.data()), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_barriers(dim3(0), out.data()), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(launch_barriers(dim3(1), out.data()), cudaSuccess);
}

TEST_F(SimtRuntime, MuchDynamicSharedMemoryIsOptedInTo) {
  const DeviceArray<int> out(std::vector<int>(64));
  const FaultLaunch launch{.shared_bytes = (48 << 10) + 4};
  EXPECT_EQ(launch_fault("warp_barriers", launch, {.out = out.data()}), cudaErrorInvalidValue);
  EXPECT_EQ(launch_dynamic_shared(1, 1, 228 << 10, out.data()), cudaErrorInvalidValue);
}

TEST_F(SimtRuntime, DependentLaunchesNeedADeviceThatKnowsThem) {
  const DeviceArray<int> values(std::vector<int>(10));
  EXPECT_EQ(launch_step(values.data(), 10, 1, nullptr, true), cudaSuccess);
  simt::settings().compute_capability = 80;
  EXPECT_EQ(launch_step(values.data(), 10, 1, nullptr, true), cudaErrorNotSupported);
  EXPECT_EQ(launch_step(values.data(), 10, 1, nullptr, false), cudaSuccess);
}

TEST_F(SimtRuntime, AfterAFaultNothingRunsAnyMore) {
  const DeviceArray<int> values(std::vector<int>(64));
  EXPECT_EQ(launch_fault("trap", {}, {.in = values.data()}), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_EQ(launch_step(values.data(), 64, 1, nullptr), cudaErrorLaunchFailure);
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, 8), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchFailure);
  EXPECT_STREQ(cudaGetErrorString(cudaErrorLaunchFailure), simt::last_fault()->what());
  simt::reset();
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(launch_step(values.data(), 64, 1, nullptr), cudaSuccess);
  EXPECT_EQ(values.download()[63], 1);
}

TEST_F(SimtRuntime, ShowsTheDeviceOfTheSettings) {
  simt::settings().num_multiprocessors = 7;
  simt::settings().compute_capability = 86;
  int value = 0;
  require_success(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0));
  EXPECT_EQ(value, 7);
  cudaDeviceProp properties{};
  require_success(cudaGetDeviceProperties(&properties, 0));
  EXPECT_EQ(properties.major, 8);
  EXPECT_EQ(properties.minor, 6);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  simt::settings().num_devices = 0;
  int count = -1;
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  EXPECT_EQ(count, 0);
}

TEST_F(SimtRuntime, NothingIsLaunchedInAStreamOfADeviceThatIsNotCurrent) {
  simt::settings().num_devices = 2;
  const DeviceArray<int> values(std::vector<int>(10));
  const Stream stream;
  require_success(cudaSetDevice(1));
  EXPECT_EQ(launch_step(values.data(), 10, 1, stream.handle), cudaErrorInvalidResourceHandle);
  EXPECT_NE(std::string(simt::last_fault()->what()).find("while device 1 is current"),
            std::string::npos);
  require_success(cudaSetDevice(0));
  EXPECT_EQ(launch_step(values.data(), 10, 1, stream.handle), cudaSuccess);
}

TEST_F(SimtRuntime, OccupancyFollowsThreadsAndSharedMemory) {
  const auto blocks = [](int threads, size_t shared_bytes) {
    int count = 0;
    require_success(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        &count, static_cast<const void*>(nullptr), threads, shared_bytes));
    return count;
  };
  EXPECT_EQ(blocks(32, 0), 32);
  EXPECT_EQ(blocks(256, 0), 8);
  EXPECT_EQ(blocks(1000, 0), 2);
  EXPECT_EQ(blocks(256, 100 << 10), 2);
}

TEST_F(SimtRuntime, ThreadsOfTheHostMayCallAtOnce) {
  constexpr int kCallers = 4;
  constexpr int kSteps = 10;
  std::vector<int> results(kCallers);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([caller, &results] {
      cudaStream_t stream = nullptr;
      require_success(cudaStreamCreate(&stream));
      const DeviceArray<int> values(std::vector<int>(100));
      for (int step = 0; step < kSteps; ++step) {
        require_success(launch_step(values.data(), 100, caller, stream));
      }
      require_success(cudaMemcpyAsync(&results[static_cast<size_t>(caller)], values.data() + 50,
                                      sizeof(int), cudaMemcpyDeviceToHost, stream));
      require_success(cudaStreamSynchronize(stream));
      require_success(cudaStreamDestroy(stream));
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (int caller = 0; caller < kCallers; ++caller) {
    EXPECT_EQ(results[static_cast<size_t>(caller)], 1023 * caller);
  }
}

}  // namespace
}  // namespace switchyard::test

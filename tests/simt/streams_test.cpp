// Streams, events and captured graphs, in every order in which streams may run.
#include <gtest/gtest.h>

#include <vector>

#include "tests/simt/device_array.h"
#include "tests/simt/fault.h"
#include "tests/simt/fault_kernels.h"
#include "tests/simt/intrinsics_kernels.h"
#include "tests/simt/settings.h"

namespace switchyard::test {
namespace {

class SimtStreams : public testing::TestWithParam<simt::StreamOrder> {
 protected:
  SimtStreams() : values_(std::vector<int>(64)) {
    simt::reset();
    simt::settings().stream_order = GetParam();
    require_success(cudaStreamCreateWithFlags(&first_, cudaStreamNonBlocking));
    require_success(cudaStreamCreateWithFlags(&second_, cudaStreamNonBlocking));
    require_success(cudaEventCreate(&event_));
  }
  ~SimtStreams() override {
    simt::reset();
    cudaEventDestroy(event_);
    cudaStreamDestroy(second_);
    cudaStreamDestroy(first_);
  }

  cudaError_t step(int addend, cudaStream_t stream) {
    return launch_step(values_.data(), 64, addend, stream);
  }
  /// Makes `later` wait for what `earlier` has been given so far.
  void order(cudaStream_t earlier, cudaStream_t later) {
    require_success(cudaEventRecord(event_, earlier));
    require_success(cudaStreamWaitEvent(later, event_, 0));
  }
  int value() {
    require_success(cudaDeviceSynchronize());
    return values_.download()[63];
  }

  simt::ScopedSettings scope_;
  cudaStream_t first_ = nullptr;
  cudaStream_t second_ = nullptr;
  cudaEvent_t event_ = nullptr;
  DeviceArray<int> values_;
};

INSTANTIATE_TEST_SUITE_P(Orders, SimtStreams,
                         testing::Values(simt::StreamOrder::kEager, simt::StreamOrder::kDeferred,
                                         simt::StreamOrder::kRandom));

TEST_P(SimtStreams, EventsOrderStreams) {
  int want = 0;
  for (int round = 0; round < 5; ++round) {
    require_success(step(1, first_));
    order(first_, second_);
    require_success(step(3, second_));
    order(second_, first_);
    want = (2 * want + 1) * 2 + 3;
  }
  require_success(cudaStreamSynchronize(second_));
  EXPECT_EQ(value(), want);
}

TEST_P(SimtStreams, WorkIsDoneOnceSynchronized) {
  require_success(step(5, first_));
  const bool at_once = GetParam() == simt::StreamOrder::kEager;
  EXPECT_EQ(cudaStreamQuery(first_), at_once ? cudaSuccess : cudaErrorNotReady);
  require_success(cudaStreamSynchronize(first_));
  EXPECT_EQ(cudaStreamQuery(first_), cudaSuccess);
  EXPECT_EQ(value(), 5);
}

TEST_P(SimtStreams, PinnedMemoryShowsAMissingSynchronization) {
  void* pinned = nullptr;
  require_success(cudaMallocHost(&pinned, sizeof(int)));
  auto* result = static_cast<volatile int*>(pinned);
  *result = -1;
  require_success(step(5, first_));
  require_success(
      cudaMemcpyAsync(pinned, values_.data(), sizeof(int), cudaMemcpyDeviceToHost, first_));
  const bool at_once = GetParam() == simt::StreamOrder::kEager;
  EXPECT_EQ(*result, at_once ? 5 : -1);
  require_success(cudaStreamSynchronize(first_));
  EXPECT_EQ(*result, 5);
  require_success(cudaFreeHost(pinned));
}

TEST_P(SimtStreams, OrdinaryMemoryIsCopiedBeforeTheCallReturns) {
  std::vector<int> host(64, 7);
  require_success(
      cudaMemcpyAsync(values_.data(), host.data(), 256, cudaMemcpyHostToDevice, first_));
  host.assign(64, 0);
  require_success(step(1, first_));
  require_success(
      cudaMemcpyAsync(host.data(), values_.data(), 256, cudaMemcpyDeviceToHost, first_));
  EXPECT_EQ(host[63], 15);
}

TEST_P(SimtStreams, TheDefaultStreamWaitsForBlockingStreamsOnly) {
  cudaStream_t blocking = nullptr;
  require_success(cudaStreamCreate(&blocking));
  require_success(step(1, blocking));
  require_success(step(1, nullptr));
  EXPECT_EQ(cudaStreamQuery(blocking), cudaSuccess);
  EXPECT_EQ(value(), 3);
  require_success(step(1, first_));
  require_success(cudaMemset(values_.data(), 0, 256));
  const bool at_once = GetParam() == simt::StreamOrder::kEager;
  EXPECT_EQ(value(), at_once ? 0 : 1);
  require_success(cudaStreamDestroy(blocking));
}

TEST_P(SimtStreams, HostFunctionsRunInTheirTurn) {
  int calls = 0;
  require_success(cudaLaunchHostFunc(
      first_, [](void* count) { ++*static_cast<int*>(count); }, &calls));
  require_success(cudaStreamSynchronize(first_));
  EXPECT_EQ(calls, 1);
}

TEST_P(SimtStreams, EventsMeasureTime) {
  cudaEvent_t end = nullptr;
  require_success(cudaEventCreate(&end));
  require_success(cudaEventRecord(event_, first_));
  require_success(step(1, first_));
  require_success(cudaEventRecord(end, first_));
  require_success(cudaEventSynchronize(end));
  float time_ms = -1;
  require_success(cudaEventElapsedTime(&time_ms, event_, end));
  EXPECT_GE(time_ms, 0);
  require_success(cudaEventDestroy(end));
}

TEST_P(SimtStreams, AFaultAppearsWhenTheStreamIsSynchronized) {
  const DeviceArray<int> zeros(std::vector<int>(64));
  const FaultArguments arguments{.out = values_.data(), .in = zeros.data()};
  const cudaError_t launched = launch_fault("trap", {.stream = first_}, arguments);
  const bool at_once = GetParam() == simt::StreamOrder::kEager;
  EXPECT_EQ(launched, at_once ? cudaErrorLaunchFailure : cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(first_), cudaErrorLaunchFailure);
}

TEST_P(SimtStreams, MemoryIsFreedInOrder) {
  void* memory = nullptr;
  require_success(cudaMallocAsync(&memory, 256, first_));
  require_success(cudaMemsetAsync(memory, 1, 256, first_));
  require_success(cudaMemcpyAsync(values_.data(), memory, 256, cudaMemcpyDeviceToDevice, first_));
  require_success(cudaFreeAsync(memory, first_));
  EXPECT_EQ(value(), 0x01010101);
  EXPECT_EQ(cudaFree(memory), cudaErrorInvalidValue);
}

TEST_P(SimtStreams, CapturedWorkRunsOnlyWhenLaunched) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  require_success(cudaStreamBeginCapture(first_, cudaStreamCaptureModeGlobal));
  cudaStreamCaptureStatus status{};
  require_success(cudaStreamIsCapturing(first_, &status));
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  require_success(step(1, first_));
  require_success(step(2, first_));
  require_success(cudaStreamEndCapture(first_, &graph));
  size_t num_nodes = 0;
  require_success(cudaGraphGetNodes(graph, nullptr, &num_nodes));
  EXPECT_EQ(num_nodes, 2u);
  EXPECT_EQ(value(), 0);
  require_success(cudaGraphInstantiate(&executable, graph, 0));
  require_success(cudaGraphDestroy(graph));
  for (int launch = 0; launch < 3; ++launch) require_success(cudaGraphLaunch(executable, second_));
  EXPECT_EQ(value(), 4 * (4 * 4 + 4) + 4);
  require_success(cudaGraphExecDestroy(executable));
}

TEST_P(SimtStreams, ACaptureSpreadsAlongEvents) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  require_success(cudaStreamBeginCapture(first_, cudaStreamCaptureModeThreadLocal));
  require_success(step(1, first_));
  order(first_, second_);
  require_success(step(2, second_));
  order(second_, first_);
  require_success(step(3, first_));
  require_success(cudaStreamEndCapture(first_, &graph));
  require_success(cudaGraphInstantiate(&executable, graph, 0));
  require_success(cudaGraphLaunch(executable, first_));
  EXPECT_EQ(value(), (1 * 2 + 2) * 2 + 3);
  require_success(cudaGraphExecDestroy(executable));
  require_success(cudaGraphDestroy(graph));
}

TEST_P(SimtStreams, ABranchOfACaptureMustComeBack) {
  cudaGraph_t graph = nullptr;
  require_success(cudaStreamBeginCapture(first_, cudaStreamCaptureModeThreadLocal));
  order(first_, second_);
  require_success(step(2, second_));
  EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(graph, nullptr);
}

TEST_P(SimtStreams, WhatCannotBeCapturedBreaksTheCapture) {
  cudaGraph_t graph = nullptr;
  void* memory = nullptr;
  require_success(cudaStreamBeginCapture(first_, cudaStreamCaptureModeGlobal));
  EXPECT_EQ(cudaMalloc(&memory, 8), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(step(1, first_), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureInvalidated);
  require_success(cudaStreamBeginCapture(first_, cudaStreamCaptureModeGlobal));
  EXPECT_EQ(cudaStreamSynchronize(first_), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureInvalidated);
  cudaGetLastError();
}

TEST_P(SimtStreams, NobodyAsksHowFarACaptureIs) {
  cudaGraph_t graph = nullptr;
  cudaEvent_t event = nullptr;
  void* memory = nullptr;
  require_success(cudaEventCreate(&event));
  require_success(cudaMallocHost(&memory, 8));
  const auto expect_broken = [&](cudaStreamCaptureMode mode, const auto& call, cudaError_t error) {
    require_success(cudaStreamBeginCapture(first_, mode));
    EXPECT_EQ(call(), error);
    EXPECT_EQ(cudaStreamEndCapture(first_, &graph), cudaErrorStreamCaptureInvalidated);
  };
  const auto mode = cudaStreamCaptureModeGlobal;
  expect_broken(
      mode, [&] { return cudaStreamQuery(first_); }, cudaErrorStreamCaptureUnsupported);
  // Of events that no capture has seen, too.
  expect_broken(
      mode, [&] { return cudaEventQuery(event); }, cudaErrorStreamCaptureUnsupported);
  expect_broken(
      mode, [&] { return cudaEventSynchronize(event); }, cudaErrorStreamCaptureUnsupported);
  void* more = nullptr;
  expect_broken(
      mode, [&] { return cudaMallocHost(&more, 8); }, cudaErrorStreamCaptureUnsupported);
  expect_broken(
      mode, [&] { return cudaFreeHost(memory); }, cudaErrorStreamCaptureUnsupported);
  // In the relaxed mode only what was captured.
  expect_broken(
      cudaStreamCaptureModeRelaxed,
      [&] {
        require_success(cudaEventQuery(event));
        require_success(cudaEventRecord(event, first_));
        return cudaEventQuery(event);
      },
      cudaErrorCapturedEvent);
  require_success(cudaFreeHost(memory));
  require_success(cudaEventDestroy(event));
  cudaGetLastError();
}

TEST_P(SimtStreams, ADestroyedStreamIsNoStream) {
  cudaStream_t stream = nullptr;
  require_success(cudaStreamCreate(&stream));
  require_success(cudaStreamDestroy(stream));
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(step(1, stream), cudaErrorInvalidResourceHandle);
  cudaGetLastError();
}

}  // namespace
}  // namespace switchyard::test

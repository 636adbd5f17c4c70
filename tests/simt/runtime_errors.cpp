// The errors' names and texts.
#include "tests/simt/runtime.h"

using switchyard::simt::Runtime;
using switchyard::simt::runtime;

namespace {

struct ErrorName {
  cudaError_t error;
  const char* name;
  const char* text;
};

constexpr ErrorName kErrorNames[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidClusterSize, "cudaErrorInvalidClusterSize", "cluster misconfiguration"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "not permitted in the current state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out"},
    {cudaErrorHardwareStackError, "cudaErrorHardwareStackError", "stack error"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would merge separate captures"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the stream that began it"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "capture has work in a stream that has not been joined"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency on work outside the capture"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "the default stream would depend on a capturing stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "event was last recorded in a capture"},
};

const ErrorName* find(cudaError_t error) {
  for (const ErrorName& entry : kErrorNames) {
    if (entry.error == error) return &entry;
  }
  return nullptr;
}

}  // namespace

// NOLINTBEGIN(readability-identifier-naming)
extern "C" {

cudaError_t CUDARTAPI cudaGetLastError() {
  const auto guard = runtime().lock();
  const cudaError_t error = Runtime::last_error();
  Runtime::last_error() = runtime().sticky_error();
  return error;
}

cudaError_t CUDARTAPI cudaPeekAtLastError() { return Runtime::last_error(); }

const char* CUDARTAPI cudaGetErrorName(cudaError_t error) {
  const ErrorName* entry = find(error);
  return entry != nullptr ? entry->name : "unrecognized error code";
}

/// For the error that a kernel's fault has left, the fault's own text. It stays valid until another
/// fault or a reset.
const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
  const auto guard = runtime().lock();
  const bool is_fault = error != cudaSuccess && error == runtime().sticky_error();
  if (is_fault && runtime().fault()) return runtime().fault()->what();
  const ErrorName* entry = find(error);
  return entry != nullptr ? entry->text : "unrecognized error code";
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)

// Streams, events and waiting for them.
#include "tests/simt/runtime.h"

using switchyard::simt::Runtime;
using switchyard::simt::runtime;

namespace {

constexpr int kGreatestPriority = -5;
constexpr int kLeastPriority = 0;

}  // namespace

// NOLINTBEGIN(readability-identifier-naming)
extern "C" {

cudaError_t CUDARTAPI cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags,
                                                   int priority) {
  const auto guard = runtime().lock();
  *stream = runtime().add_stream(flags, priority);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, kLeastPriority);
}

cudaError_t CUDARTAPI cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t handle) {
  const auto guard = runtime().lock();
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr || stream->is_default) {
    return Runtime::remember(cudaErrorInvalidResourceHandle);
  }
  if (stream->capture != nullptr) return Runtime::remember(cudaErrorStreamCaptureUnsupported);
  runtime().remove_stream(stream);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t handle) {
  const auto guard = runtime().lock();
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  const cudaError_t error =
      Runtime::refuse_in(stream->capture.get(), cudaErrorStreamCaptureUnsupported);
  if (error != cudaSuccess) return error;
  runtime().drain(stream);
  return Runtime::remember(runtime().sticky_error());
}

cudaError_t CUDARTAPI cudaStreamQuery(cudaStream_t handle) {
  const auto guard = runtime().lock();
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  const cudaError_t error =
      Runtime::refuse_in(stream->capture.get(), cudaErrorStreamCaptureUnsupported);
  if (error != cudaSuccess) return error;
  if (!runtime().is_done(stream)) return cudaErrorNotReady;
  return Runtime::remember(runtime().sticky_error());
}

cudaError_t CUDARTAPI cudaStreamGetDevice(cudaStream_t handle, int* device) {
  const auto guard = runtime().lock();
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  *device = stream->device;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamGetFlags(cudaStream_t handle, unsigned* flags) {
  const auto guard = runtime().lock();
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  *flags = stream->flags;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  const auto guard = runtime().lock();
  const cudaStream_t stream = runtime().stream(handle);
  if (stream == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  *priority = stream->priority;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = kLeastPriority;
  if (greatest != nullptr) *greatest = kGreatestPriority;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const auto guard = runtime().lock();
  return runtime().wait(stream, event);
}

cudaError_t CUDARTAPI cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  const auto guard = runtime().lock();
  return runtime().submit(stream, [=] { function(data); });
}

cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st{nullptr, flags};
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t event) {
  if (event == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  delete event;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto guard = runtime().lock();
  return runtime().record(stream, event);
}

cudaError_t CUDARTAPI cudaEventQuery(cudaEvent_t event) {
  const auto guard = runtime().lock();
  cudaError_t error = runtime().refuse_while_capturing();
  if (error != cudaSuccess) return error;
  if (event->record == nullptr || event->record->done) {
    return Runtime::remember(runtime().sticky_error());
  }
  error = Runtime::refuse_in(event->record->capture.get(), cudaErrorCapturedEvent);
  return error != cudaSuccess ? error : cudaErrorNotReady;
}

cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t event) {
  const auto guard = runtime().lock();
  cudaError_t error = runtime().refuse_while_capturing();
  if (error != cudaSuccess) return error;
  const auto record = event->record;
  if (record == nullptr) return cudaSuccess;
  error = Runtime::refuse_in(record->capture.get(), cudaErrorCapturedEvent);
  if (error != cudaSuccess) return error;
  runtime().drain(*record);
  return Runtime::remember(runtime().sticky_error());
}

cudaError_t CUDARTAPI cudaEventElapsedTime(float* time_ms, cudaEvent_t start, cudaEvent_t end) {
  const auto guard = runtime().lock();
  const bool timed = ((start->flags | end->flags) & cudaEventDisableTiming) == 0;
  if (start->record == nullptr || end->record == nullptr || !timed) {
    return Runtime::remember(cudaErrorInvalidResourceHandle);
  }
  if (!start->record->done || !end->record->done) return cudaErrorNotReady;
  *time_ms = static_cast<float>(end->record->time_ms - start->record->time_ms);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceSynchronize() {
  const auto guard = runtime().lock();
  const cudaError_t error = runtime().refuse_while_capturing();
  if (error != cudaSuccess) return error;
  runtime().drain_all();
  return Runtime::remember(runtime().sticky_error());
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)

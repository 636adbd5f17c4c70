// Stream capture and graphs.
#include "tests/simt/runtime.h"

namespace switchyard::simt {

cudaError_t Runtime::refuse_while_capturing() {
  for (const auto& capture : captures_) {
    const bool concerned = capture->mode == cudaStreamCaptureModeGlobal ||
                           (capture->mode == cudaStreamCaptureModeThreadLocal &&
                            capture->thread == std::this_thread::get_id());
    if (!concerned) continue;
    return refuse_in(capture.get(), cudaErrorStreamCaptureUnsupported);
  }
  return cudaSuccess;
}

cudaError_t Runtime::refuse_in(Capture* capture, cudaError_t error) {
  if (capture == nullptr) return cudaSuccess;
  capture->invalid = true;
  return remember(error);
}

cudaError_t Runtime::capture_part(cudaStream_t stream, GraphPart part) {
  Capture& capture = *stream->capture;
  if (capture.invalid) return remember(cudaErrorStreamCaptureInvalidated);
  ++capture.branches[stream].steps;
  capture.parts.push_back(std::move(part));
  return cudaSuccess;
}

cudaError_t Runtime::begin_capture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const cudaStream_t origin = stream(handle);
  if (origin == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (origin->is_default) return remember(cudaErrorStreamCaptureUnsupported);
  if (origin->capture != nullptr) return remember(cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>();
  capture->origin = origin;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->id = ++num_captures_;
  capture->branches.try_emplace(origin);
  captures_.insert(capture);
  origin->capture = capture;
  return cudaSuccess;
}

cudaError_t Runtime::end_capture(cudaStream_t handle, cudaGraph_t* graph) {
  *graph = nullptr;
  const cudaStream_t origin = stream(handle);
  if (origin == nullptr) return remember(cudaErrorInvalidResourceHandle);
  const std::shared_ptr<Capture> capture = origin->capture;
  if (capture == nullptr) return remember(cudaErrorIllegalState);
  if (capture->origin != origin) return remember(cudaErrorStreamCaptureUnmatched);
  bool joined = true;
  for (const auto& [stream, branch] : capture->branches) {
    stream->capture = nullptr;
    joined = joined && (stream == origin || branch.joined_steps == branch.steps);
  }
  captures_.erase(capture);
  if (capture->invalid) return remember(cudaErrorStreamCaptureInvalidated);
  if (!joined) return remember(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{std::move(capture->parts)};
  return cudaSuccess;
}

}  // namespace switchyard::simt

using switchyard::simt::Capture;
using switchyard::simt::Runtime;
using switchyard::simt::runtime;

// NOLINTBEGIN(readability-identifier-naming)
extern "C" {

cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const auto guard = runtime().lock();
  return runtime().begin_capture(stream, mode);
}

cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const auto guard = runtime().lock();
  return runtime().end_capture(stream, graph);
}

cudaError_t CUDARTAPI cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const auto guard = runtime().lock();
  const cudaStream_t known = runtime().stream(stream);
  if (known == nullptr) return Runtime::remember(cudaErrorInvalidResourceHandle);
  const Capture* capture = known->capture.get();
  *status = capture == nullptr ? cudaStreamCaptureStatusNone
            : capture->invalid ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                           unsigned long long) {
  *executable = new CUgraphExec_st{graph->parts};
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphInstantiateWithFlags(cudaGraphExec_t* executable, cudaGraph_t graph,
                                                    unsigned long long flags) {
  return cudaGraphInstantiate(executable, graph, flags);
}

cudaError_t CUDARTAPI cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const auto guard = runtime().lock();
  for (const auto& part : executable->parts) {
    const cudaError_t error = part(stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

/// The nodes themselves are not shown, only their number.
cudaError_t CUDARTAPI cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes,
                                        size_t* num_nodes) {
  if (nodes != nullptr) return Runtime::remember(cudaErrorNotSupported);
  *num_nodes = graph->parts.size();
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)

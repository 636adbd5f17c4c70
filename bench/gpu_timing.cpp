#include "bench/gpu_timing.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>
#include <stdexcept>

namespace switchyard::bench {
namespace {

void require(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(status));
}

class Stream {
 public:
  Stream() { require(cudaStreamCreate(&handle_), "cudaStreamCreate"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(handle_); }
  [[nodiscard]] cudaStream_t get() const { return handle_; }

 private:
  cudaStream_t handle_ = nullptr;
};

class Event {
 public:
  Event() { require(cudaEventCreate(&handle_), "cudaEventCreate"); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(handle_); }
  [[nodiscard]] cudaEvent_t get() const { return handle_; }

 private:
  cudaEvent_t handle_ = nullptr;
};

/// Calls in a row, captured.
class Graph {
 public:
  Graph(const TimedCall& call, int num_calls, cudaStream_t stream) {
    cudaGraph_t graph = nullptr;
    require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "cudaStreamBeginCapture");
    for (int i = 0; i < num_calls; ++i) call.enqueue(i, stream);
    require(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    require(status, "cudaGraphInstantiate");
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { cudaGraphExecDestroy(executable_); }

  void launch(cudaStream_t stream) const {
    require(cudaGraphLaunch(executable_, stream), "cudaGraphLaunch");
  }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::vector<double> time_interleaved(const std::vector<TimedCall>& calls,
                                     const ReplayOptions& options) {
  const Stream stream;
  const Event start;
  const Event end;
  std::vector<std::unique_ptr<Graph>> graphs;
  for (const TimedCall& call : calls) {
    graphs.push_back(std::make_unique<Graph>(call, options.calls, stream.get()));
    graphs.back()->launch(stream.get());  // the first replay uploads the graph
  }
  require(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
  std::vector<std::vector<double>> samples(calls.size());
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    for (size_t i = 0; i < calls.size(); ++i) {
      require(cudaEventRecord(start.get(), stream.get()), "cudaEventRecord");
      for (int replay = 0; replay < options.replays; ++replay) graphs[i]->launch(stream.get());
      require(cudaEventRecord(end.get(), stream.get()), "cudaEventRecord");
      require(cudaEventSynchronize(end.get()), "cudaEventSynchronize");
      float milliseconds = 0;
      require(cudaEventElapsedTime(&milliseconds, start.get(), end.get()), "cudaEventElapsedTime");
      samples[i].push_back(1e3 * milliseconds / (options.replays * options.calls));
    }
  }
  std::vector<double> medians;
  for (const std::vector<double>& values : samples) medians.push_back(median(values));
  return medians;
}

}  // namespace switchyard::bench

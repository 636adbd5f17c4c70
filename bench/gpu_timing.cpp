#include "bench/gpu_timing.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <memory>

#include "bench/median.h"
#include "tests/simt/device_array.h"

namespace switchyard::bench {
namespace {

using test::CapturedGraph;
using test::require_success;
using test::Stream;

class Event {
 public:
  Event() { require_success(cudaEventCreate(&handle_)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(handle_); }
  [[nodiscard]] cudaEvent_t get() const { return handle_; }

 private:
  cudaEvent_t handle_ = nullptr;
};

}  // namespace

std::vector<double> time_interleaved(const std::vector<TimedCall>& calls,
                                     const ReplayOptions& options) {
  const Stream stream;
  const Event start;
  const Event end;
  std::vector<std::unique_ptr<CapturedGraph>> graphs;
  for (const TimedCall& call : calls) {
    graphs.push_back(std::make_unique<CapturedGraph>([&](cudaStream_t captured) {
      for (int i = 0; i < options.calls; ++i) call.enqueue(i, captured);
    }));
    graphs.back()->launch(stream.handle);  // the first replay uploads the graph
  }
  require_success(cudaStreamSynchronize(stream.handle));
  std::vector<std::vector<double>> samples(calls.size());
  for (int repeat = 0; repeat < options.repeats; ++repeat) {
    for (size_t i = 0; i < calls.size(); ++i) {
      require_success(cudaEventRecord(start.get(), stream.handle));
      for (int replay = 0; replay < options.replays; ++replay) graphs[i]->launch(stream.handle);
      require_success(cudaEventRecord(end.get(), stream.handle));
      require_success(cudaEventSynchronize(end.get()));
      float milliseconds = 0;
      require_success(cudaEventElapsedTime(&milliseconds, start.get(), end.get()));
      samples[i].push_back(1e3 * milliseconds / (options.replays * options.calls));
    }
  }
  std::vector<double> medians;
  for (const std::vector<double>& values : samples) medians.push_back(median(values));
  return medians;
}

}  // namespace switchyard::bench

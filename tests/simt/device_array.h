// Device memory that a test or a benchmark fills and reads, streams, and graphs.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace switchyard::test {

/// Throws when a runtime call fails, with what the runtime says of it.
inline void require_success(cudaError_t error) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error));
}

/// Owns `size` elements; copies wait for all work, so they suit tests and nothing else.
template <typename T>
class DeviceArray {
 public:
  /// Holds garbage that no kernel may read.
  explicit DeviceArray(size_t size) : size_(size) {
    void* memory = nullptr;
    require_success(cudaMalloc(&memory, size * sizeof(T)));
    data_ = static_cast<T*>(memory);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    upload(values);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] size_t size() const { return size_; }

  void upload(const std::vector<T>& values) {
    require_success(
        cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  [[nodiscard]] std::vector<T> download() const {
    std::vector<T> values(size_);
    require_success(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

/// Owns a stream.
struct Stream {
  Stream() { require_success(cudaStreamCreate(&handle)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(handle); }
  cudaStream_t handle = nullptr;
};

/// What `enqueue` puts into a stream, captured.
class CapturedGraph {
 public:
  template <typename Enqueue>
  explicit CapturedGraph(const Enqueue& enqueue) {
    cudaGraph_t graph = nullptr;
    require_success(cudaStreamBeginCapture(stream_.handle, cudaStreamCaptureModeGlobal));
    enqueue(stream_.handle);
    require_success(cudaStreamEndCapture(stream_.handle, &graph));
    const cudaError_t status = cudaGraphInstantiate(&executable_, graph, 0);
    cudaGraphDestroy(graph);
    require_success(status);
  }
  CapturedGraph(const CapturedGraph&) = delete;
  CapturedGraph& operator=(const CapturedGraph&) = delete;
  ~CapturedGraph() { cudaGraphExecDestroy(executable_); }

  void launch(cudaStream_t stream) const { require_success(cudaGraphLaunch(executable_, stream)); }
  /// Runs it to its end.
  void replay() const {
    launch(stream_.handle);
    require_success(cudaStreamSynchronize(stream_.handle));
  }

 private:
  Stream stream_;
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace switchyard::test

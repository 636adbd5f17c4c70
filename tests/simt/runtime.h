// The state behind the runtime calls: streams with the work that waits in them, events, captures,
// errors. The calls themselves are in runtime_*.cpp.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "tests/random_stream.h"
#include "tests/simt/fault.h"
#include "tests/simt/settings.h"

namespace switchyard::simt {

using Work = std::function<void()>;
/// Enqueues a part of a graph that is launched in this stream.
using GraphPart = std::function<cudaError_t(cudaStream_t)>;

/// Work recorded for a graph. Streams that wait for its events join it; their work is kept in the
/// order of the calls, which is one of those that the graph allows.
struct Capture {
  cudaStream_t origin = nullptr;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  unsigned long long id = 0;
  bool invalid = false;
  std::vector<GraphPart> parts;
  /// For each stream that has joined: how many steps it took, and how many of them some event has
  /// carried to another stream.
  struct Branch {
    int steps = 1;
    int joined_steps = 0;
  };
  std::map<cudaStream_t, Branch> branches;
};

/// One cudaEventRecord, or something else that a stream may wait for.
struct EventRecord {
  bool done = false;
  bool external = false;  ///< set by another host thread, not by a stream
  double time_ms = 0;
  // In a capture.
  std::shared_ptr<Capture> capture;
  cudaStream_t stream = nullptr;
  int steps = 0;
};

/// Work in a stream, or, with `wait`, nothing until that record is done.
struct StreamStep {
  Work work;
  std::shared_ptr<EventRecord> wait;
};

struct PinnedMemory {
  size_t bytes = 0;
  cudaMemoryType type = cudaMemoryTypeHost;
};

}  // namespace switchyard::simt

// What CUDA's handles point to; the names are CUDA's.
// NOLINTBEGIN(readability-identifier-naming)
struct CUstream_st {
  std::deque<switchyard::simt::StreamStep> steps;
  std::shared_ptr<switchyard::simt::Capture> capture;
  unsigned flags = 0;
  int priority = 0;
  int device = 0;
  bool is_default = false;
  int polls = 0;  ///< of work that waits
};
struct CUevent_st {
  std::shared_ptr<switchyard::simt::EventRecord> record;  ///< the latest
  unsigned flags = 0;
};
struct CUgraph_st {
  std::vector<switchyard::simt::GraphPart> parts;
};
struct CUgraphExec_st {
  std::vector<switchyard::simt::GraphPart> parts;
};
// NOLINTEND(readability-identifier-naming)

namespace switchyard::simt {

class Runtime {
 public:
  Runtime();

  /// Keeps other host threads out; every call holds it.
  std::unique_lock<std::recursive_mutex> lock() { return std::unique_lock(mutex_); }

  /// Makes `error` the thread's last one, unless it is cudaSuccess, and returns it.
  static cudaError_t remember(cudaError_t error);
  static cudaError_t& last_error();
  /// After a kernel's fault every call answers this, as on a GPU.
  [[nodiscard]] cudaError_t sticky_error() const { return sticky_error_; }
  [[nodiscard]] const std::optional<Fault>& fault() const { return fault_; }
  /// Notes a refusal whose code says too little.
  void explain(const Fault& fault) { fault_ = fault; }

  /// The stream behind a handle; nullptr for a handle that is none.
  cudaStream_t stream(cudaStream_t handle);
  /// The device that is current in the calling thread.
  static int& device();
  /// The current device's default stream, which runs everything at once, after all that waits in
  /// blocking streams; after something external has been enqueued, once that is done.
  cudaStream_t default_stream() { return &default_streams_[static_cast<size_t>(device())]; }
  cudaStream_t add_stream(unsigned flags, int priority);
  void remove_stream(cudaStream_t stream);

  /// Runs, enqueues or captures.
  cudaError_t submit(cudaStream_t handle, Work work);
  /// Adds to the graph that captures the stream.
  static cudaError_t capture_part(cudaStream_t stream, GraphPart part);
  cudaError_t wait(cudaStream_t handle, cudaEvent_t event);
  cudaError_t record(cudaStream_t handle, cudaEvent_t event);
  /// Whether a stream has nothing left; polling lets it go on as a device would meanwhile.
  bool is_done(cudaStream_t stream);
  /// Lets a stream wait until another host thread calls finish().
  void wait_external(cudaStream_t stream, const std::shared_ptr<EventRecord>& record);
  void finish(EventRecord& record);
  /// Gives up the lock, which the caller holds once, until another thread has finished a record or
  /// a moment has passed.
  void wait_for_others();
  /// Runs what waits in a stream, in every stream of a device, the current one, or before a record.
  void drain(cudaStream_t stream);
  void drain_all() { drain_all(device()); }
  void drain_all(int of_device);
  void drain(const EventRecord& record);

  /// cudaSuccess where nothing is captured that such a call would break; else breaks it.
  cudaError_t refuse_while_capturing();
  /// The same of a call that concerns this capture alone; null: none.
  static cudaError_t refuse_in(Capture* capture, cudaError_t error);
  cudaError_t begin_capture(cudaStream_t handle, cudaStreamCaptureMode mode);
  cudaError_t end_capture(cudaStream_t handle, cudaGraph_t* graph);

  std::map<const char*, PinnedMemory>& pinned() { return pinned_; }
  /// The dynamic shared memory for which a kernel was opted in.
  std::map<const void*, int>& dynamic_limits() { return dynamic_limits_; }
  /// Kernels that were opted in to clusters of more than 8 blocks.
  std::set<const void*>& large_cluster_kernels() { return large_cluster_kernels_; }

  void reset();

 private:
  cudaError_t run(const Work& work);
  void step(cudaStream_t stream);
  std::vector<cudaStream_t> all_streams();
  void advance();
  template <class Done>
  void run_until(const Done& done, cudaStream_t preferred);

  std::recursive_mutex mutex_;
  std::condition_variable_any finished_;
  std::array<CUstream_st, kMaxDevices> default_streams_;
  std::set<cudaStream_t> streams_;
  std::set<std::shared_ptr<Capture>> captures_;
  unsigned long long num_captures_ = 0;
  std::map<const char*, PinnedMemory> pinned_;
  std::map<const void*, int> dynamic_limits_;
  std::set<const void*> large_cluster_kernels_;
  cudaError_t sticky_error_ = cudaSuccess;
  std::optional<Fault> fault_;
  test::RandomStream choices_{1};
  uint64_t seed_ = 1;
};

Runtime& runtime();

}  // namespace switchyard::simt

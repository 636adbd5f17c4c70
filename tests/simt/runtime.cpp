#include "tests/simt/runtime.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "tests/simt/device_memory.h"
#include "tests/simt/executor.h"

namespace switchyard::simt {
namespace {

double now_ms() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::milli>(time).count();
}

/// What a GPU would say.
cudaError_t error_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::kBadLaunch:
      return cudaErrorInvalidConfiguration;
    case FaultKind::kLivelock:
      return cudaErrorLaunchTimeout;
    case FaultKind::kInvalidAccess:
      return cudaErrorIllegalAddress;
    case FaultKind::kMisaligned:
      return cudaErrorMisalignedAddress;
    case FaultKind::kStackOverflow:
      return cudaErrorHardwareStackError;
    default:
      return cudaErrorLaunchFailure;
  }
}

}  // namespace

Runtime& runtime() {
  // Never destroyed: what outlives it may still call.
  static auto* instance = new Runtime;
  return *instance;
}

std::optional<Fault> last_fault() {
  const auto guard = runtime().lock();
  return runtime().fault();
}

void reset() {
  const auto guard = runtime().lock();
  runtime().reset();
}

int64_t num_device_allocations() {
  const auto guard = runtime().lock();
  return device_memory().num_allocations();
}

cudaError_t& Runtime::last_error() {
  thread_local cudaError_t error = cudaSuccess;
  return error;
}

cudaError_t Runtime::remember(cudaError_t error) {
  if (error != cudaSuccess) last_error() = error;
  return error;
}

Runtime::Runtime() {
  for (int i = 0; i < kMaxDevices; ++i) {
    default_streams_[static_cast<size_t>(i)].device = i;
    default_streams_[static_cast<size_t>(i)].is_default = true;
  }
}

int& Runtime::device() {
  thread_local int current = 0;
  return current;
}

cudaStream_t Runtime::stream(cudaStream_t handle) {
  const bool is_default =
      handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread;
  if (is_default) return default_stream();
  const auto is_handle = [&](const CUstream_st& stream) { return &stream == handle; };
  const bool is_some_default =
      std::any_of(default_streams_.begin(), default_streams_.end(), is_handle);
  return is_some_default || streams_.contains(handle) ? handle : nullptr;
}

cudaStream_t Runtime::add_stream(unsigned flags, int priority) {
  auto* added = new CUstream_st;
  added->flags = flags;
  added->priority = priority;
  added->device = device();
  streams_.insert(added);
  return added;
}

void Runtime::remove_stream(cudaStream_t stream) {
  drain(stream);
  streams_.erase(stream);
  delete stream;
}

cudaError_t Runtime::run(const Work& work) {
  if (sticky_error_ != cudaSuccess) return sticky_error_;
  try {
    const OpenDeviceMemory open;
    work();
    const std::string overrun = device_memory().find_overrun();
    if (!overrun.empty()) {
      throw Fault(FaultKind::kInvalidAccess, "a write to " + overrun +
                                                 ", seen at the end of what ran in a stream; the "
                                                 "last kernel was " +
                                                 running_kernel());
    }
    return cudaSuccess;
  } catch (const Fault& fault) {
    fault_ = fault;
    const cudaError_t error = error_of(fault.kind());
    if (fault.kind() != FaultKind::kBadLaunch) sticky_error_ = error;
    return remember(error);
  }
}

void Runtime::step(cudaStream_t stream) {
  const StreamStep step = std::move(stream->steps.front());
  stream->steps.pop_front();
  if (step.work) run(step.work);
}

std::vector<cudaStream_t> Runtime::all_streams() {
  std::vector<cudaStream_t> all(streams_.begin(), streams_.end());
  for (CUstream_st& stream : default_streams_) all.push_back(&stream);
  return all;
}

namespace {

bool can_step(cudaStream_t stream) {
  if (stream->steps.empty()) return false;
  const EventRecord* wait = stream->steps.front().wait.get();
  return wait == nullptr || wait->done;
}

bool waits_for_others(cudaStream_t stream) {
  return !stream->steps.empty() && stream->steps.front().wait != nullptr &&
         stream->steps.front().wait->external;
}

}  // namespace

void Runtime::advance() {
  for (bool moved = true; moved;) {
    moved = false;
    for (const cudaStream_t stream : all_streams()) {
      for (; sticky_error_ == cudaSuccess && can_step(stream); moved = true) step(stream);
    }
  }
}

bool Runtime::is_done(cudaStream_t stream) {
  constexpr int kPatience = 3;
  if (settings().stream_order == StreamOrder::kEager) advance();
  if (stream->steps.empty()) {
    stream->polls = 0;
    return true;
  }
  if (settings().stream_order != StreamOrder::kEager && ++stream->polls > kPatience) advance();
  return false;
}

void Runtime::wait_external(cudaStream_t stream, const std::shared_ptr<EventRecord>& record) {
  record->external = true;
  if (!record->done) stream->steps.push_back({nullptr, record});
}

void Runtime::finish(EventRecord& record) {
  record.done = true;
  finished_.notify_all();
}

void Runtime::wait_for_others() {
  constexpr std::chrono::milliseconds kMoment{20};
  finished_.wait_for(mutex_, kMoment);
}

template <class Done>
void Runtime::run_until(const Done& done, cudaStream_t preferred) {
  if (seed_ != settings().seed) {
    seed_ = settings().seed;
    choices_ = test::RandomStream(seed_);
  }
  constexpr double kLongestWaitMs = 240'000;
  const double begin_ms = now_ms();
  while (!done()) {
    if (sticky_error_ != cudaSuccess) {
      for (const cudaStream_t stream : all_streams()) stream->steps.clear();
      return;
    }
    if (preferred != nullptr && settings().stream_order != StreamOrder::kRandom &&
        can_step(preferred)) {
      step(preferred);
      continue;
    }
    std::vector<cudaStream_t> candidates;
    const std::vector<cudaStream_t> all = all_streams();
    std::copy_if(all.begin(), all.end(), std::back_inserter(candidates), can_step);
    if (candidates.empty()) {
      if (std::any_of(all.begin(), all.end(), waits_for_others) &&
          now_ms() - begin_ms < kLongestWaitMs) {
        wait_for_others();
        continue;
      }
      std::fprintf(stderr, "simt: every stream waits for an event that none records\n");
      std::abort();
    }
    step(choices_.pick(candidates));
  }
}

void Runtime::drain(cudaStream_t stream) {
  if (stream->is_default) return drain_all(stream->device);
  run_until([&] { return stream->steps.empty(); }, stream);
}

void Runtime::drain_all(int of_device) {
  const auto is_empty = [&](cudaStream_t stream) {
    return stream->device != of_device || stream->steps.empty();
  };
  run_until(
      [&] {
        const std::vector<cudaStream_t> all = all_streams();
        return std::all_of(all.begin(), all.end(), is_empty);
      },
      nullptr);
}

void Runtime::drain(const EventRecord& record) {
  run_until([&] { return record.done; }, nullptr);
}

cudaError_t Runtime::submit(cudaStream_t handle, Work work) {
  const cudaStream_t target = stream(handle);
  if (target == nullptr) return remember(cudaErrorInvalidResourceHandle);
  if (target->capture != nullptr) {
    return capture_part(target,
                        [work](cudaStream_t stream) { return runtime().submit(stream, work); });
  }
  if (sticky_error_ != cudaSuccess) return remember(sticky_error_);
  if (target->is_default) {
    const auto blocks = [&](cudaStream_t other) {
      return other->device == target->device && (other->flags & cudaStreamNonBlocking) == 0;
    };
    for (const cudaStream_t other : streams_) {
      if (other->capture == nullptr || !blocks(other)) continue;
      other->capture->invalid = true;
      return remember(cudaErrorStreamCaptureImplicit);
    }
    for (const cudaStream_t other : std::vector(streams_.begin(), streams_.end())) {
      if (blocks(other)) drain(other);
    }
    if (target->steps.empty()) return run(work);
    target->steps.push_back({std::move(work), nullptr});
    return cudaSuccess;
  }
  CUstream_st& before = default_streams_[static_cast<size_t>(target->device)];
  if ((target->flags & cudaStreamNonBlocking) == 0 && !before.steps.empty()) {
    run_until([&] { return before.steps.empty(); }, &before);
  }
  if (settings().stream_order == StreamOrder::kEager && target->steps.empty()) return run(work);
  target->steps.push_back({std::move(work), nullptr});
  return cudaSuccess;
}

cudaError_t Runtime::record(cudaStream_t handle, cudaEvent_t event) {
  const cudaStream_t target = stream(handle);
  if (target == nullptr || event == nullptr) return remember(cudaErrorInvalidResourceHandle);
  auto record = std::make_shared<EventRecord>();
  event->record = record;
  if (target->capture != nullptr) {
    record->capture = target->capture;
    record->stream = target;
    record->steps = target->capture->branches[target].steps;
    return cudaSuccess;
  }
  return submit(handle, [record] {
    record->done = true;
    record->time_ms = now_ms();
  });
}

cudaError_t Runtime::wait(cudaStream_t handle, cudaEvent_t event) {
  const cudaStream_t target = stream(handle);
  if (target == nullptr || event == nullptr) return remember(cudaErrorInvalidResourceHandle);
  const std::shared_ptr<EventRecord> record = event->record;
  if (record == nullptr) return cudaSuccess;
  if (record->capture != nullptr) {
    if (!captures_.contains(record->capture)) return remember(cudaErrorCapturedEvent);
    if (target->capture != nullptr && target->capture != record->capture) {
      return remember(cudaErrorStreamCaptureMerge);
    }
    target->capture = record->capture;
    auto& branches = record->capture->branches;
    branches.try_emplace(target);
    int& joined = branches[record->stream].joined_steps;
    if (record->stream != target) joined = std::max(joined, record->steps);
    return cudaSuccess;
  }
  if (target->capture != nullptr) return remember(cudaErrorStreamCaptureIsolation);
  if (record->done) return cudaSuccess;
  if (target->is_default) {
    drain(*record);
  } else {
    target->steps.push_back({nullptr, record});
  }
  return cudaSuccess;
}

void Runtime::reset() {
  for (const cudaStream_t stream : all_streams()) {
    stream->steps.clear();
    stream->capture = nullptr;
  }
  captures_.clear();
  sticky_error_ = cudaSuccess;
  last_error() = cudaSuccess;
  fault_.reset();
}

}  // namespace switchyard::simt

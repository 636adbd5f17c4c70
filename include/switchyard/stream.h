// The stream on which a device backend enqueues work.
#pragma once

struct CUstream_st;  // what cudaStream_t points to; this header needs no CUDA

namespace switchyard {

/// Non-owning handle of a CUDA stream; the default is the default stream. Host backends ignore it
/// and are done when they return.
class StreamView {
 public:
  constexpr StreamView() = default;
  constexpr StreamView(CUstream_st* stream) : stream_(stream) {}

  [[nodiscard]] constexpr CUstream_st* get() const { return stream_; }

 private:
  CUstream_st* stream_ = nullptr;
};

}  // namespace switchyard

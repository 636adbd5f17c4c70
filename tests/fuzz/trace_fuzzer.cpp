// Any bytes are a tensor file, or are refused with an Error; the same for a trace.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#include "switchyard/buffer.h"
#include "switchyard/errors.h"
#include "switchyard/trace.h"

namespace {

/// Reads what the views promise, so that a sanitizer sees a wrong one.
void touch(const switchyard::TensorFile& file) {
  volatile std::byte last{};
  for (const switchyard::Tensor& tensor : file.tensors()) {
    if (!tensor.bytes.empty()) last = tensor.bytes.back();
  }
  (void)last;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  // Exactly as long as the input, so that reading past its end is noticed.
  switchyard::Buffer<std::byte> contents(static_cast<int64_t>(size));
  if (size > 0) std::memcpy(contents.data(), data, size);
  try {
    switchyard::TensorFile file = switchyard::TensorFile::parse(contents.bytes(), "input");
    touch(file);
    const switchyard::Trace trace(std::move(file));
    for (const switchyard::TraceLayer& layer : trace.layers()) {
      for (int64_t token = 0; token < layer.gate_weights.rows; ++token) {
        volatile float weight = layer.gate_weights.row(token)[layer.gate_weights.cols - 1];
        (void)weight;
      }
    }
  } catch (const switchyard::Error&) {
  }
  return 0;
}

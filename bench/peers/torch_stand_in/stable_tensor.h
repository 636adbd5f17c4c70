// As much of PyTorch's stable C++ interface as vLLM's routing kernels are launched with, without
// PyTorch: tensors are views, what a call allocates comes from a ring of memory that is there
// before, as PyTorch's own allocator would have it, and the current stream is the one that the
// benchmark names.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

// What a tensor of a type holds.
#define SWITCHYARD_TORCH_TYPES(X) \
  X(Byte, uint8_t)                \
  X(Char, int8_t)                 \
  X(Short, int16_t)               \
  X(Int, int32_t)                 \
  X(Long, int64_t)                \
  X(UInt16, uint16_t)             \
  X(UInt32, uint32_t)             \
  X(UInt64, uint64_t)             \
  X(Half, __half)                 \
  X(BFloat16, __nv_bfloat16)      \
  X(Float, float)                 \
  X(Bool, bool)

namespace torch::headeronly {

#define SWITCHYARD_TORCH_NAME(name, type) name,
enum class ScalarType { SWITCHYARD_TORCH_TYPES(SWITCHYARD_TORCH_NAME) };
#undef SWITCHYARD_TORCH_NAME

template <ScalarType type>
struct TypeOf;
#define SWITCHYARD_TORCH_TYPE(name, held) \
  template <>                             \
  struct TypeOf<ScalarType::name> {       \
    using type = held;                    \
  };
SWITCHYARD_TORCH_TYPES(SWITCHYARD_TORCH_TYPE)
#undef SWITCHYARD_TORCH_TYPE

inline size_t size_of(ScalarType type) {
  switch (type) {
#define SWITCHYARD_TORCH_SIZE(name, held) \
  case ScalarType::name:                  \
    return sizeof(held);
    SWITCHYARD_TORCH_TYPES(SWITCHYARD_TORCH_SIZE)
#undef SWITCHYARD_TORCH_SIZE
  }
  return 0;
}

inline std::ostream& operator<<(std::ostream& out, ScalarType type) {
  return out << static_cast<int>(type);
}

template <typename... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

/// `text` is the condition's.
template <typename Condition, typename... Parts>
void check(const char* text, const Condition& condition, const Parts&... parts) {
  if (!condition) fail("refused: ", text, ": ", parts...);
}

}  // namespace torch::headeronly

#define STD_TORCH_CHECK(...) torch::headeronly::check(#__VA_ARGS__, __VA_ARGS__)
#define STD_CUDA_CHECK(call) STD_TORCH_CHECK((call) == cudaSuccess)
#define STD_CUDA_KERNEL_LAUNCH_CHECK() STD_CUDA_CHECK(cudaGetLastError())

#define THO_DISPATCH_SWITCH(which, name, ...)                        \
  [&] {                                                              \
    switch (which) {                                                 \
      __VA_ARGS__                                                    \
      default:                                                       \
        torch::headeronly::fail(name, " is not made for this type"); \
    }                                                                \
  }()
#define THO_PRIVATE_CASE_TYPE_USING_HINT(which, hint, ...)                \
  case which: {                                                           \
    using hint [[maybe_unused]] = torch::headeronly::TypeOf<which>::type; \
    return __VA_ARGS__();                                                 \
  }
#define THO_DISPATCH_CASE(which, ...) THO_PRIVATE_CASE_TYPE_USING_HINT(which, scalar_t, __VA_ARGS__)

namespace torch::stable {

using headeronly::ScalarType;

struct Device {
  bool operator==(const Device&) const { return true; }
};

/// A contiguous array in memory of somebody else.
class Tensor {
 public:
  Tensor() = default;
  Tensor(void* data, std::vector<int64_t> sizes, ScalarType type)
      : data_(data), sizes_(std::move(sizes)), type_(type) {}

  [[nodiscard]] ScalarType scalar_type() const { return type_; }
  [[nodiscard]] int64_t dim() const { return static_cast<int64_t>(sizes_.size()); }
  [[nodiscard]] int64_t size(int64_t axis) const {
    return sizes_.at(static_cast<size_t>(axis < 0 ? axis + dim() : axis));
  }
  [[nodiscard]] int64_t numel() const {
    int64_t count = 1;
    for (const int64_t size : sizes_) count *= size;
    return count;
  }
  [[nodiscard]] int64_t stride(int64_t axis) const {
    int64_t count = 1;
    for (int64_t i = dim() - 1; i > (axis < 0 ? axis + dim() : axis); --i) count *= size(i);
    return count;
  }
  [[nodiscard]] bool is_contiguous() const { return true; }
  [[nodiscard]] bool defined() const { return data_ != nullptr; }
  [[nodiscard]] int32_t get_device_index() const { return 0; }
  [[nodiscard]] Device device() const { return {}; }
  [[nodiscard]] void* data_ptr() const { return data_; }
  [[nodiscard]] const void* const_data_ptr() const { return data_; }
  [[nodiscard]] void* mutable_data_ptr() const { return data_; }
  template <typename T>
  [[nodiscard]] const T* const_data_ptr() const {
    return static_cast<const T*>(data_);
  }
  template <typename T>
  [[nodiscard]] T* mutable_data_ptr() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::vector<int64_t> sizes_;
  ScalarType type_ = ScalarType::Byte;
};

namespace accelerator {
/// The benchmark's device is the current one.
struct DeviceGuard {
  explicit DeviceGuard(int32_t) {}
};
using DeviceIndex = int32_t;
}  // namespace accelerator

/// What calls allocate and the stream that they go to.
struct Context {
  char* memory = nullptr;
  size_t bytes = 0;
  size_t next = 0;
  cudaStream_t stream = nullptr;
};
inline thread_local Context context;

inline Tensor new_empty(const Tensor& /*like*/, std::vector<int64_t> sizes, ScalarType type) {
  size_t bytes = headeronly::size_of(type);
  for (const int64_t size : sizes) bytes *= static_cast<size_t>(size);
  bytes = (bytes + 511) / 512 * 512;
  if (bytes > context.bytes) headeronly::fail("a call asks for ", bytes, " bytes of memory");
  if (context.next + bytes > context.bytes) context.next = 0;
  void* const at = context.memory + context.next;
  context.next += bytes;
  return {at, std::move(sizes), type};
}

inline Tensor new_zeros(const Tensor& like, std::vector<int64_t> sizes, ScalarType type) {
  Tensor made = new_empty(like, std::move(sizes), type);
  STD_CUDA_CHECK(cudaMemsetAsync(made.data_ptr(), 0,
                                 static_cast<size_t>(made.numel()) * headeronly::size_of(type),
                                 context.stream));
  return made;
}

}  // namespace torch::stable

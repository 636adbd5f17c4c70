// The JSON header of a .safetensors file, checked whole.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cpu/refuse.h"
#include "switchyard/trace.h"

namespace switchyard::cpu {

/// Bytes of an element, 0 for a type that is not known.
int64_t element_size(std::string_view dtype);

/// Bytes of a tensor, or nothing where they do not fit an int64.
std::optional<int64_t> tensor_bytes(int64_t element_bytes, const std::vector<int64_t>& shape);

struct TensorHeader {
  struct Entry {
    Tensor tensor;  ///< without its bytes
    int64_t begin = 0;
    int64_t end = 0;
  };
  std::vector<Entry> entries;  ///< by offset; they tile the data
  std::map<std::string, std::string> metadata;
};

/// @throws IoError  naming the file and what is wrong with its header.
TensorHeader parse_tensor_header(std::string_view source_name, std::string_view text,
                                 int64_t data_bytes);

/// Throws IoError with the file's name and the parts written one after another.
template <typename... Parts>
[[noreturn]] void refuse_file(std::string_view source_name, const Parts&... parts) {
  std::ostringstream message;
  message << source_name << ": ";
  (message << ... << parts);
  throw IoError(message.str());
}

}  // namespace switchyard::cpu

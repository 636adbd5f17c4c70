// Tensor files made by hand, so that tests can make them wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace switchyard::testing {

/// The bytes of a .safetensors file with this header and data, as they are.
inline std::string tensor_file(const std::string& header, const std::string& data = "") {
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

template <typename T>
std::string bytes_of(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// One entry of a header.
inline std::string entry(const std::string& name, const std::string& dtype,
                         const std::string& shape, uint64_t begin, uint64_t end) {
  std::ostringstream text;
  text << '"' << name << "\":{\"dtype\":\"" << dtype << "\",\"shape\":" << shape
       << ",\"data_offsets\":[" << begin << ',' << end << "]}";
  return text.str();
}

}  // namespace switchyard::testing

#include "cpu/tensor_header.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

namespace switchyard::cpu {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 3;  // header, tensor, shape

struct ElementType {
  std::string_view name;
  int64_t size;
};
constexpr ElementType kElementTypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1},
    {"U16", 2},  {"I16", 2}, {"F16", 2}, {"BF16", 2},    {"U32", 4},     {"I32", 4},
    {"F32", 4},  {"U64", 8}, {"I64", 8}, {"F64", 8},     {"C64", 8},
};

/// Reads one header. Every complaint starts with the file's name.
class HeaderParser {
 public:
  HeaderParser(std::string_view source_name, int64_t data_bytes)
      : source_name_(source_name), data_bytes_(data_bytes) {}

  TensorHeader parse(std::string_view text) const {
    if (text.empty() || text.front() != '{') fail("header does not start with '{'");
    // The parser would take a zero byte for the end of the text.
    if (text.find('\0') != text.npos) fail("header holds a zero byte");
    const Json json = parse_json(text);
    TensorHeader header;
    for (const auto& [name, value] : json.items()) {
      if (name == "__metadata__") {
        read_metadata(value, header.metadata);
      } else {
        header.entries.push_back(read_tensor(name, value));
      }
    }
    check_layout(header.entries);
    return header;
  }

 private:
  using Entry = TensorHeader::Entry;

  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    refuse_file(source_name_, parts...);
  }

  Json parse_json(std::string_view text) const {
    std::vector<std::set<std::string>> keys;
    const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
      switch (event) {
        case Json::parse_event_t::object_start:
          if (depth >= kMaxDepth) fail("header is nested too deeply");
          keys.emplace_back();
          break;
        case Json::parse_event_t::array_start:
          if (depth >= kMaxDepth) fail("header is nested too deeply");
          break;
        case Json::parse_event_t::object_end:
          keys.pop_back();
          break;
        case Json::parse_event_t::key:
          if (!keys.back().insert(parsed.get<std::string>()).second) {
            fail("header has the key '", parsed.get<std::string>(), "' twice");
          }
          break;
        default:
          break;
      }
      return true;
    };
    try {
      return Json::parse(text, watch);
    } catch (const Json::exception& error) {
      std::string_view what = error.what();
      if (const auto end = what.find("] "); end != what.npos) what.remove_prefix(end + 2);
      fail("header is not valid JSON: ", what);
    }
  }

  void read_metadata(const Json& value, std::map<std::string, std::string>& metadata) const {
    if (!value.is_object()) fail("__metadata__ is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__ '", key, "' is not a string");
      metadata.emplace(key, text.get<std::string>());
    }
  }

  Entry read_tensor(const std::string& name, const Json& value) const {
    if (!value.is_object()) fail("tensor '", name, "' is not described by an object");
    for (const auto& [key, unused] : value.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        fail("tensor '", name, "' has the unknown field '", key, "'");
      }
    }
    Entry entry;
    entry.tensor.name = name;
    const Json& dtype = field(name, value, "dtype");
    if (!dtype.is_string()) fail("tensor '", name, "': dtype is not a string");
    entry.tensor.dtype = dtype.get<std::string>();
    const int64_t element_bytes = element_size(entry.tensor.dtype);
    if (element_bytes == 0)
      fail("tensor '", name, "' has unknown dtype '", entry.tensor.dtype, "'");
    entry.tensor.shape = read_integers(name, value, "shape");

    const std::vector<int64_t> offsets = read_integers(name, value, "data_offsets");
    if (offsets.size() != 2) {
      fail("tensor '", name, "': data_offsets has ", offsets.size(), " numbers, must have 2");
    }
    entry.begin = offsets[0];
    entry.end = offsets[1];
    if (entry.begin > entry.end) {
      fail("tensor '", name, "' begins at ", entry.begin, ", after its end at ", entry.end);
    }
    if (entry.end > data_bytes_) {
      fail("tensor '", name, "' ends at byte ", entry.end, " of the data, which has ", data_bytes_,
           " bytes");
    }
    const std::optional<int64_t> bytes = tensor_bytes(element_bytes, entry.tensor.shape);
    if (!bytes) fail("tensor '", name, "': the size of its shape overflows");
    if (*bytes != entry.end - entry.begin) {
      fail("tensor '", name, "' has ", entry.end - entry.begin, " bytes, its dtype and shape need ",
           *bytes);
    }
    return entry;
  }

  const Json& field(const std::string& name, const Json& value, const char* key) const {
    const auto found = value.find(key);
    if (found == value.end()) fail("tensor '", name, "' has no ", key);
    return *found;
  }

  std::vector<int64_t> read_integers(const std::string& name, const Json& value,
                                     const char* key) const {
    const Json& list = field(name, value, key);
    if (!list.is_array()) fail("tensor '", name, "': ", key, " is not an array");
    std::vector<int64_t> numbers;
    numbers.reserve(list.size());
    for (const Json& number : list) {
      if (!number.is_number_unsigned() ||
          number.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
        fail("tensor '", name, "': ", key, " holds ", number.dump(-1, ' ', true, kReplace),
             ", which is not a size");
      }
      numbers.push_back(number.get<int64_t>());
    }
    return numbers;
  }

  /// The tensors must tile the data: nothing shared, nothing unaccounted for.
  void check_layout(std::vector<Entry>& entries) const {
    std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::tie(a.begin, a.end, a.tensor.name) < std::tie(b.begin, b.end, b.tensor.name);
    });
    int64_t covered = 0;
    for (const Entry& entry : entries) {
      if (entry.begin < covered) {
        fail("tensor '", entry.tensor.name, "' overlaps the one before it at byte ", entry.begin,
             " of the data");
      }
      if (entry.begin > covered) {
        fail("bytes ", covered, " to ", entry.begin, " of the data belong to no tensor");
      }
      covered = entry.end;
    }
    if (covered != data_bytes_) {
      fail("bytes ", covered, " to ", data_bytes_, " of the data belong to no tensor");
    }
  }

  static constexpr auto kReplace = Json::error_handler_t::replace;

  std::string_view source_name_;
  int64_t data_bytes_;
};

}  // namespace

int64_t element_size(std::string_view dtype) {
  for (const ElementType& type : kElementTypes) {
    if (type.name == dtype) return type.size;
  }
  return 0;
}

std::optional<int64_t> tensor_bytes(int64_t element_bytes, const std::vector<int64_t>& shape) {
  int64_t bytes = element_bytes;
  for (const int64_t extent : shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes)) return std::nullopt;
  }
  return bytes;
}

TensorHeader parse_tensor_header(std::string_view source_name, std::string_view text,
                                 int64_t data_bytes) {
  return HeaderParser(source_name, data_bytes).parse(text);
}

}  // namespace switchyard::cpu

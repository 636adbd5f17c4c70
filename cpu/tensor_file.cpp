// The .safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes.
// https://huggingface.co/docs/safetensors
#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "cpu/logging.h"
#include "cpu/refuse.h"
#include "cpu/tensor_header.h"
#include "switchyard/buffer.h"
#include "switchyard/output_file.h"
#include "switchyard/trace.h"

namespace switchyard {

static_assert(std::endian::native == std::endian::little, "tensors are read in place");

struct TensorFile::Contents {
  std::string source_name;
  std::vector<Tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::map<std::string, std::size_t, std::less<>> by_name;
  Buffer<std::byte> data;                 // what open() read
  std::vector<Buffer<std::byte>> copies;  // tensors that lay misaligned in the file

  void fill(std::string_view header, std::span<const std::byte> data_bytes);
};

namespace {

using cpu::refuse_file;

constexpr int64_t kLengthBytes = 8;
constexpr int64_t kMaxHeaderBytes = 100'000'000;

/// The header's length from the first bytes of a file, checked against the file's size.
int64_t header_length(const std::string& name, const std::byte* first_bytes, int64_t file_bytes) {
  uint64_t length = 0;
  std::memcpy(&length, first_bytes, kLengthBytes);
  if (length > uint64_t{kMaxHeaderBytes}) {
    refuse_file(name, "header length is ", length, " bytes, must be at most ", kMaxHeaderBytes);
  }
  if (length > static_cast<uint64_t>(file_bytes - kLengthBytes)) {
    refuse_file(name, "header length is ", length, " bytes, but the file has only ", file_bytes);
  }
  return static_cast<int64_t>(length);
}

void check_length_is_there(const std::string& name, int64_t file_bytes) {
  if (file_bytes < kLengthBytes) {
    refuse_file(name, "has ", file_bytes, " bytes, too few to be a safetensors file");
  }
}

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

}  // namespace

TensorFile::TensorFile(std::unique_ptr<Contents> contents) : contents_(std::move(contents)) {}
TensorFile::TensorFile(TensorFile&&) noexcept = default;
TensorFile& TensorFile::operator=(TensorFile&&) noexcept = default;
TensorFile::~TensorFile() = default;

const std::vector<Tensor>& TensorFile::tensors() const { return contents_->tensors; }

const std::map<std::string, std::string>& TensorFile::metadata() const {
  return contents_->metadata;
}

const std::string& TensorFile::source_name() const { return contents_->source_name; }

const Tensor* TensorFile::find(std::string_view name) const {
  const auto found = contents_->by_name.find(name);
  return found == contents_->by_name.end() ? nullptr : &contents_->tensors[found->second];
}

void TensorFile::Contents::fill(std::string_view header, std::span<const std::byte> data_bytes) {
  static constexpr std::byte kNothing[8]{};
  cpu::TensorHeader parsed =
      cpu::parse_tensor_header(source_name, header, static_cast<int64_t>(data_bytes.size()));
  metadata = std::move(parsed.metadata);
  tensors.reserve(parsed.entries.size());
  for (cpu::TensorHeader::Entry& entry : parsed.entries) {
    Tensor& tensor = entry.tensor;
    tensor.bytes = data_bytes.subspan(static_cast<std::size_t>(entry.begin),
                                      static_cast<std::size_t>(entry.end - entry.begin));
    const auto alignment = static_cast<uintptr_t>(cpu::element_size(tensor.dtype));
    if (tensor.bytes.empty()) {
      tensor.bytes = std::span(kNothing, 0);  // so that no tensor has a null pointer
    } else if (reinterpret_cast<uintptr_t>(tensor.bytes.data()) % alignment != 0) {
      Buffer<std::byte> copy(entry.end - entry.begin);
      std::memcpy(copy.data(), tensor.bytes.data(), tensor.bytes.size());
      tensor.bytes = std::span<const std::byte>(copy.data(), tensor.bytes.size());
      copies.push_back(std::move(copy));
    }
    by_name.emplace(tensor.name, tensors.size());
    tensors.push_back(std::move(tensor));
  }
}

TensorFile TensorFile::parse(std::span<const std::byte> contents, std::string_view source_name) {
  auto result = std::make_unique<Contents>();
  result->source_name = source_name;
  const auto size = static_cast<int64_t>(contents.size());
  const std::string& name = result->source_name;
  check_length_is_there(name, size);
  const auto length = static_cast<std::size_t>(header_length(name, contents.data(), size));
  const auto* text = reinterpret_cast<const char*>(contents.data()) + kLengthBytes;
  result->fill({text, length}, contents.subspan(kLengthBytes + length));
  return TensorFile(std::move(result));
}

TensorFile TensorFile::open(const std::filesystem::path& path) {
  auto result = std::make_unique<Contents>();
  result->source_name = path.string();
  const std::string& name = result->source_name;
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    refuse_file(name, "is not a regular file");
  }
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "rb"));
  if (file == nullptr) refuse_file(name, "cannot be opened: ", std::strerror(errno));
  const auto read = [&](void* to, int64_t bytes) {
    if (std::fread(to, 1, static_cast<std::size_t>(bytes), file.get()) !=
        static_cast<std::size_t>(bytes)) {
      refuse_file(name, "cannot be read: ",
                  std::ferror(file.get()) ? std::strerror(errno) : "it ends too early");
    }
  };
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path, error));
  if (error) refuse_file(name, "cannot be read: ", error.message());
  check_length_is_there(name, size);
  std::byte first_bytes[kLengthBytes];
  read(first_bytes, kLengthBytes);
  std::string header(static_cast<std::size_t>(header_length(name, first_bytes, size)), ' ');
  read(header.data(), static_cast<int64_t>(header.size()));
  // Apart from the header, so that the data starts aligned whatever the header's length.
  result->data = Buffer<std::byte>(size - kLengthBytes - static_cast<int64_t>(header.size()));
  read(result->data.data(), result->data.size());
  result->fill(header, result->data.bytes());
  cpu::log(LogLevel::kDebug, path.string(), ": ", result->tensors.size(), " tensors in ", size,
           " bytes");
  return TensorFile(std::move(result));
}

void TensorFileWriter::add(std::string name, std::string dtype, std::vector<int64_t> shape,
                           std::span<const std::byte> bytes) {
  if (name == "__metadata__") cpu::refuse("tensor name __metadata__ is reserved");
  for (const Entry& entry : entries_) {
    if (entry.name == name) cpu::refuse("tensor '", name, "' is added twice");
  }
  const int64_t element_bytes = cpu::element_size(dtype);
  if (element_bytes == 0) cpu::refuse("tensor '", name, "': dtype '", dtype, "' is not known");
  for (const int64_t extent : shape) {
    if (extent < 0) cpu::refuse("tensor '", name, "' has the extent ", extent);
  }
  const std::optional<int64_t> needed = cpu::tensor_bytes(element_bytes, shape);
  if (!needed) cpu::refuse("tensor '", name, "': the size of its shape overflows");
  if (*needed != static_cast<int64_t>(bytes.size())) {
    cpu::refuse("tensor '", name, "' has ", bytes.size(), " bytes, its dtype and shape need ",
                *needed);
  }
  entries_.push_back({std::move(name), std::move(dtype), std::move(shape), bytes});
}

void TensorFileWriter::set_metadata(std::string key, std::string value) {
  metadata_.insert_or_assign(std::move(key), std::move(value));
}

void TensorFileWriter::write(const std::filesystem::path& path) const {
  // Largest elements first, so that every tensor is aligned to its own.
  std::vector<const Entry*> order;
  for (const Entry& entry : entries_) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return cpu::element_size(a->dtype) > cpu::element_size(b->dtype);
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata_.empty()) header["__metadata__"] = metadata_;
  int64_t offset = 0;
  for (const Entry* entry : order) {
    const int64_t end = offset + static_cast<int64_t>(entry->bytes.size());
    header[entry->name] = {
        {"dtype", entry->dtype}, {"shape", entry->shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    cpu::refuse("a tensor's name or the metadata is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  OutputFile file(path);
  const uint64_t length = text.size();
  file.write(std::as_bytes(std::span(&length, 1)));
  file.write(text);
  for (const Entry* entry : order) file.write(entry->bytes);
  file.commit();
}

}  // namespace switchyard

// Finds the layers in a tensor file and checks that their tensors fit together.
#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <utility>

#include "cpu/tensor_header.h"
#include "switchyard/trace.h"

namespace switchyard {
namespace {

template <typename Integer>
std::optional<Integer> to_integer(std::string_view text) {
  Integer value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// A number on which all tensors that speak of it agree, and where it was first seen.
struct Agreed {
  const char* what;
  int64_t value = -1;
  std::string source{};
};

class LayerReader {
 public:
  explicit LayerReader(const TensorFile& file) : file_(file) {}

  void read_metadata() {
    read_metadata("num_experts", num_experts_);
    read_metadata("top_k", top_k_);
  }

  std::vector<TraceLayer> read_layers() {
    std::map<int32_t, TraceLayer> layers;
    for (const Tensor& tensor : file_.tensors()) read_tensor(tensor, layers);
    std::vector<TraceLayer> result;
    for (const auto& [index, layer] : layers) {
      if (layer.router_logits.data == nullptr && layer.expert_ids.data == nullptr) {
        fail("layer ", index, " has neither router_logits nor expert_ids");
      }
      if (layer.gate_weights.data != nullptr && layer.expert_ids.data == nullptr) {
        fail("layer ", index, " has gate_weights without expert_ids");
      }
      result.push_back(layer);
    }
    if (result.empty()) fail("has no tensor layers.N.router_logits or layers.N.expert_ids");
    if (num_experts_.value < 0) {
      fail("does not say how many experts there are: metadata num_experts is missing");
    }
    for (const TraceLayer& layer : result) check_values(layer);
    return result;
  }

  [[nodiscard]] int64_t num_tokens() const { return num_tokens_.value; }
  [[nodiscard]] int64_t num_experts() const { return num_experts_.value; }
  [[nodiscard]] int64_t top_k() const { return std::max<int64_t>(top_k_.value, 0); }

 private:
  template <typename... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    cpu::refuse_file(file_.source_name(), parts...);
  }

  void read_metadata(const char* key, Agreed& agreed) const {
    const auto found = file_.metadata().find(key);
    if (found == file_.metadata().end()) return;
    const std::optional<int32_t> value = to_integer<int32_t>(found->second);
    if (!value || *value < 1) {
      fail("metadata ", key, " is '", found->second, "', must be a number above 0");
    }
    agreed.value = *value;
    agreed.source = std::string("metadata ") + key;
  }

  void agree(Agreed& agreed, const Tensor& tensor, std::size_t dimension) const {
    const int64_t value = tensor.shape[dimension];
    if (agreed.value < 0) {
      agreed.value = value;
      agreed.source = tensor.name;
    } else if (agreed.value != value) {
      fail("tensor '", tensor.name, "' has ", value, " ", agreed.what, ", ", agreed.source, " has ",
           agreed.value);
    }
  }

  void expect(const Tensor& tensor, std::string_view dtype, std::size_t rank) const {
    if (tensor.dtype != dtype) {
      fail("tensor '", tensor.name, "' is ", tensor.dtype, ", must be ", dtype);
    }
    if (tensor.shape.size() != rank) {
      fail("tensor '", tensor.name, "' has ", tensor.shape.size(), " dimensions, must have ", rank);
    }
  }

  /// Shapes are [T, columns] or [E].
  void expect_shape(const Tensor& tensor, Agreed& last) {
    if (tensor.shape.back() < 1 || tensor.shape.back() > std::numeric_limits<int32_t>::max()) {
      fail("tensor '", tensor.name, "' has ", tensor.shape.back(), " ", last.what,
           ", must have at least 1");
    }
    if (tensor.shape.size() == 2) agree(num_tokens_, tensor, 0);
    agree(last, tensor, tensor.shape.size() - 1);
  }

  template <typename T>
  MatrixView<const T> matrix(const Tensor& tensor, std::string_view dtype, Agreed& columns) {
    expect(tensor, dtype, 2);
    expect_shape(tensor, columns);
    return {reinterpret_cast<const T*>(tensor.bytes.data()), tensor.shape[0], tensor.shape[1]};
  }

  template <typename T>
  VectorView<const T> vector(const Tensor& tensor, std::string_view dtype) {
    expect(tensor, dtype, 1);
    expect_shape(tensor, num_experts_);
    return {reinterpret_cast<const T*>(tensor.bytes.data()), tensor.shape[0]};
  }

  ConstTensorView logits(const Tensor& tensor) {
    if (tensor.dtype == "F16") return matrix<Float16>(tensor, "F16", num_experts_);
    if (tensor.dtype == "BF16") return matrix<BFloat16>(tensor, "BF16", num_experts_);
    if (tensor.dtype == "F32") return matrix<float>(tensor, "F32", num_experts_);
    fail("tensor '", tensor.name, "' is ", tensor.dtype, ", must be F32, F16 or BF16");
  }

  void read_tensor(const Tensor& tensor, std::map<int32_t, TraceLayer>& layers) {
    static constexpr std::string_view kPrefix = "layers.";
    std::string_view name = tensor.name;
    if (!name.starts_with(kPrefix)) return;
    name.remove_prefix(kPrefix.size());
    const std::size_t dot = name.find('.');
    if (dot == name.npos) return;
    const std::string_view number = name.substr(0, dot);
    const std::string_view field = name.substr(dot + 1);
    static constexpr std::string_view kFields[] = {"router_logits", "expert_ids", "gate_weights",
                                                   "correction_bias", "tokens_per_expert"};
    if (std::find(std::begin(kFields), std::end(kFields), field) == std::end(kFields)) return;
    const std::optional<int32_t> index = to_integer<int32_t>(number);
    // One spelling a number, so that no two tensors are the same one of a layer.
    if (!index || *index < 0 || std::to_string(*index) != number) {
      fail("tensor '", tensor.name, "' does not name a layer: '", number, "'");
    }
    TraceLayer& layer = layers[*index];
    layer.index = *index;
    if (field == "router_logits") layer.router_logits = logits(tensor);
    if (field == "expert_ids") layer.expert_ids = matrix<int32_t>(tensor, "I32", top_k_);
    if (field == "gate_weights") layer.gate_weights = matrix<float>(tensor, "F32", top_k_);
    if (field == "correction_bias") layer.correction_bias = vector<float>(tensor, "F32");
    if (field == "tokens_per_expert") layer.tokens_per_expert = vector<int64_t>(tensor, "I64");
  }

  void check_values(const TraceLayer& layer) const {
    for (int64_t token = 0; token < layer.expert_ids.rows; ++token) {
      for (int64_t slot = 0; slot < layer.expert_ids.cols; ++slot) {
        const int32_t id = layer.expert_ids.row(token)[slot];
        if (id < -1 || id >= num_experts_.value) {
          fail("layer ", layer.index, ": expert id ", id, " of token ", token, ", slot ", slot,
               " must be in [-1, ", num_experts_.value, ")");
        }
      }
    }
    for (int64_t expert = 0; expert < layer.tokens_per_expert.size; ++expert) {
      if (layer.tokens_per_expert[expert] < 0) {
        fail("layer ", layer.index, ": expert ", expert, " has ", layer.tokens_per_expert[expert],
             " tokens");
      }
    }
  }

  const TensorFile& file_;
  Agreed num_tokens_{"tokens"};
  Agreed num_experts_{"experts"};
  Agreed top_k_{"slots a token"};
};

}  // namespace

Trace Trace::open(const std::filesystem::path& path) { return Trace(TensorFile::open(path)); }

Trace::Trace(TensorFile file) : file_(std::move(file)) {
  LayerReader reader(file_);
  reader.read_metadata();
  layers_ = reader.read_layers();
  num_tokens_ = reader.num_tokens();
  num_experts_ = static_cast<int32_t>(reader.num_experts());
  top_k_ = static_cast<int32_t>(reader.top_k());
}

std::optional<std::string> Trace::metadata(std::string_view key) const {
  const auto found = file_.metadata().find(std::string(key));
  if (found == file_.metadata().end()) return std::nullopt;
  return found->second;
}

}  // namespace switchyard

// Reading and writing tensors in .safetensors files, and routing traces made of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/data_type.h"
#include "switchyard/tensor_view.h"

namespace switchyard {

/// One tensor of a TensorFile.
struct Tensor {
  std::string name;
  std::string dtype;  ///< as written in the file: "F32", "BF16", "I32", "I64", …
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  ///< little endian, row-major, aligned to its elements, never
                                     ///< null; lives as long as the file
};

/// A .safetensors file, read only. The header is checked whole before anything is believed: sizes,
/// offsets, overlaps, element types, lengths.
class TensorFile {
 public:
  /// @throws IoError  when the file cannot be read or is not what the format promises, naming what.
  static TensorFile open(const std::filesystem::path& path);
  /// The same over memory, which must outlive the result. Tensors that lie misaligned for their
  /// element type are copied.
  static TensorFile parse(std::span<const std::byte> contents, std::string_view source_name);

  TensorFile(TensorFile&&) noexcept;
  TensorFile& operator=(TensorFile&&) noexcept;
  ~TensorFile();

  [[nodiscard]] const std::vector<Tensor>& tensors() const;  ///< by offset
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const;
  [[nodiscard]] const std::string& source_name() const;  ///< the path, or what parse() was given
  /// nullptr when there is none of that name.
  [[nodiscard]] const Tensor* find(std::string_view name) const;

 private:
  struct Contents;
  explicit TensorFile(std::unique_ptr<Contents> contents);
  std::unique_ptr<Contents> contents_;
};

/// Collects tensors and writes them as one file, or none: a temporary file beside `path` is renamed
/// when it is complete and removed when it is not.
class TensorFileWriter {
 public:
  /// Views are read by write(); they must live until then.
  /// @throws InvalidArgument  for a name given twice, or bytes that disagree with dtype and shape.
  void add(std::string name, std::string dtype, std::vector<int64_t> shape,
           std::span<const std::byte> bytes);
  void set_metadata(std::string key, std::string value);
  /// @throws IoError  when the file cannot be written; no partial file is left behind.
  void write(const std::filesystem::path& path) const;

 private:
  struct Entry {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    std::span<const std::byte> bytes;
  };
  std::vector<Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

/// What a trace holds of one layer. Absent tensors are empty views (data == nullptr).
struct TraceLayer {
  int32_t index = 0;
  ConstTensorView router_logits;                ///< [T, E] F32, F16 or BF16
  MatrixView<const int32_t> expert_ids;         ///< [T, k] I32, each -1 or in [0, E)
  MatrixView<const float> gate_weights;         ///< [T, k] F32, where there are expert_ids
  VectorView<const float> correction_bias;      ///< [E] F32
  VectorView<const int64_t> tokens_per_expert;  ///< [E] I64, none below 0
};

/// A routing trace: for every layer N `layers.N.router_logits` or `layers.N.expert_ids` or both,
/// and `layers.N.gate_weights`, `layers.N.correction_bias`, `layers.N.tokens_per_expert` where
/// known, with the metadata `model`, `num_experts`, `top_k`, `score_function`, `renormalize`. All
/// layers have the same T, E and k. Tensors of other names are left alone.
class Trace {
 public:
  /// @throws IoError  when the file is refused, tensors disagree with one another or with the
  ///                  metadata in shape or type, an id or a count is out of range, E is nowhere to
  ///                  be read, or there is no layer at all.
  static Trace open(const std::filesystem::path& path);
  explicit Trace(TensorFile file);

  [[nodiscard]] const TensorFile& file() const { return file_; }
  [[nodiscard]] const std::vector<TraceLayer>& layers() const { return layers_; }  ///< by index
  [[nodiscard]] int64_t num_tokens() const { return num_tokens_; }
  [[nodiscard]] int32_t num_experts() const { return num_experts_; }
  /// Columns of expert_ids, else the metadata's; 0 when neither is there.
  [[nodiscard]] int32_t top_k() const { return top_k_; }
  /// The metadata of that name, or nothing.
  [[nodiscard]] std::optional<std::string> metadata(std::string_view key) const;

 private:
  TensorFile file_;
  std::vector<TraceLayer> layers_;
  int64_t num_tokens_ = 0;
  int32_t num_experts_ = 0;
  int32_t top_k_ = 0;
};

}  // namespace switchyard

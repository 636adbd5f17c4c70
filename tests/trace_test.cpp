// Tensor files and traces: what is read and written, and what is refused.
#include "switchyard/trace.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "switchyard/errors.h"
#include "tests/temporary_directory.h"
#include "tests/tensor_bytes.h"

namespace switchyard {
namespace {

using testing::bytes_of;
using testing::entry;
using testing::read_whole;
using testing::TemporaryDirectory;
using testing::tensor_file;

std::span<const std::byte> as_span(const std::string& bytes) {
  return std::as_bytes(std::span(bytes.data(), bytes.size()));
}

template <typename T>
std::span<const std::byte> as_span(const std::vector<T>& values) {
  return std::as_bytes(std::span(values.data(), values.size()));
}

/// The message with which `make` refuses.
template <typename Function>
std::string refusal(const Function& make) {
  try {
    make();
  } catch (const Error& error) {
    return error.what();
  }
  return "(accepted)";
}

std::string parse_refusal(const std::string& bytes) {
  return refusal([&] { TensorFile::parse(as_span(bytes), "mem"); });
}

std::string trace_refusal(const std::string& bytes) {
  return refusal([&] { Trace(TensorFile::parse(as_span(bytes), "mem")); });
}

TEST(TensorFile, ReadsTensorsAndMetadata) {
  const std::vector<float> values{1.0f, 2.0f, 3.0f, 4.0f, 5.0f, 6.0f};
  const std::string bytes = tensor_file(
      "{\"__metadata__\":{\"model\":\"m\"}," + entry("a", "F32", "[2,3]", 0, 24) + "}  ",
      bytes_of(values));
  const TensorFile file = TensorFile::parse(as_span(bytes), "mem");
  ASSERT_EQ(file.tensors().size(), 1u);
  const Tensor* tensor = file.find("a");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->dtype, "F32");
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(reinterpret_cast<const float*>(tensor->bytes.data())[5], 6.0f);
  EXPECT_EQ(file.metadata().at("model"), "m");
  EXPECT_EQ(file.find("b"), nullptr);
  EXPECT_EQ(file.source_name(), "mem");
}

TEST(TensorFile, AcceptsScalarsEmptyTensorsAndNoTensors) {
  EXPECT_EQ(parse_refusal(tensor_file("{}")), "(accepted)");
  const std::string bytes = tensor_file(
      "{" + entry("scalar", "U8", "[]", 0, 1) + "," + entry("none", "F64", "[0,7]", 1, 1) + "}",
      "x");
  const TensorFile file = TensorFile::parse(as_span(bytes), "mem");
  EXPECT_EQ(file.find("scalar")->bytes.size(), 1u);
  EXPECT_EQ(file.find("none")->bytes.size(), 0u);
  EXPECT_NE(file.find("none")->bytes.data(), nullptr);
}

TEST(TensorFile, MisalignedTensorsAreAlignedCopies) {
  const std::string bytes = tensor_file(
      "{" + entry("one", "U8", "[1]", 0, 1) + "," + entry("two", "I64", "[1]", 1, 9) + "}",
      "x" + bytes_of(std::vector<int64_t>{-7}));
  for (std::size_t shift = 0; shift < 8; ++shift) {
    const std::string moved = std::string(shift, ' ') + bytes;
    const TensorFile file = TensorFile::parse(as_span(moved).subspan(shift), "mem");
    const std::byte* data = file.find("two")->bytes.data();
    ASSERT_EQ(reinterpret_cast<uintptr_t>(data) % 8, 0u);
    EXPECT_EQ(*reinterpret_cast<const int64_t*>(data), -7);
  }
}

struct BadFile {
  const char* name;
  std::string bytes;
  std::string message;  // a part of it
};

void PrintTo(const BadFile& bad, std::ostream* out) { *out << bad.name; }

class TensorFileRefuses : public ::testing::TestWithParam<BadFile> {};

TEST_P(TensorFileRefuses, NamingTheFileAndWhatIsWrong) {
  const std::string message = parse_refusal(GetParam().bytes);
  EXPECT_EQ(message.rfind("mem: ", 0), 0u) << message;
  EXPECT_NE(message.find(GetParam().message), message.npos) << message;
}

std::string with_length(uint64_t length, const std::string& rest) {
  return bytes_of(std::vector<uint64_t>{length}) + rest;
}

const BadFile kBadFiles[] = {
    {"empty", "", "has 0 bytes"},
    {"seven_bytes", "1234567", "has 7 bytes"},
    {"length_past_the_end", with_length(3, "{}"), "header length is 3 bytes"},
    {"length_huge", with_length(~uint64_t{0}, "{}"), "at most 100000000"},
    {"no_header", with_length(0, ""), "does not start with '{'"},
    {"array", tensor_file("[]"), "does not start with '{'"},
    {"byte_order_mark", tensor_file("\xef\xbb\xbf{}"), "does not start with '{'"},
    {"leading_space", tensor_file(" {}"), "does not start with '{'"},
    {"not_json", tensor_file("{oops}"), "not valid JSON"},
    {"cut_off", tensor_file("{\"a\":"), "not valid JSON"},
    {"trailing_text", tensor_file("{} x"), "not valid JSON"},
    {"zero_padding", tensor_file(std::string("{}\0\0", 4)), "zero byte"},
    {"not_utf8", tensor_file("{\"\xff\":{}}"), "not valid JSON"},
    {"duplicate_tensor", tensor_file("{\"a\":{},\"a\":{}}"), "key 'a' twice"},
    {"duplicate_field", tensor_file("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}"),
     "key 'dtype' twice"},
    {"deep", tensor_file("{\"a\":" + std::string(100000, '[')), "nested too deeply"},
    {"deep_objects", tensor_file("{\"a\":{\"b\":{\"c\":{}}}}"), "nested too deeply"},
    {"tensor_no_object", tensor_file("{\"a\":1}"), "'a' is not described by an object"},
    {"unknown_field", tensor_file("{\"a\":{\"color\":1}}"), "unknown field 'color'"},
    {"no_dtype", tensor_file("{\"a\":{\"shape\":[]}}"), "has no dtype"},
    {"no_shape", tensor_file("{\"a\":{\"dtype\":\"U8\"}}"), "has no shape"},
    {"no_offsets", tensor_file("{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}"), "has no data_offsets"},
    {"dtype_number", tensor_file("{\"a\":{\"dtype\":8}}"), "dtype is not a string"},
    {"dtype_unknown", tensor_file("{" + entry("a", "Q7", "[]", 0, 1) + "}", "x"),
     "unknown dtype 'Q7'"},
    {"shape_text", tensor_file("{" + entry("a", "U8", "\"x\"", 0, 1) + "}", "x"),
     "shape is not an array"},
    {"shape_negative", tensor_file("{" + entry("a", "U8", "[-1]", 0, 1) + "}", "x"),
     "shape holds -1"},
    {"shape_fraction", tensor_file("{" + entry("a", "U8", "[1.5]", 0, 1) + "}", "x"),
     "shape holds 1.5"},
    {"shape_past_int64",
     tensor_file("{" + entry("a", "U8", "[9223372036854775808]", 0, 1) + "}", "x"),
     "shape holds 9223372036854775808"},
    {"shape_past_uint64",
     tensor_file("{" + entry("a", "U8", "[99999999999999999999]", 0, 1) + "}", "x"),
     "which is not a size"},
    {"shape_overflow", tensor_file("{" + entry("a", "F32", "[4294967296,4294967296]", 0, 0) + "}"),
     "overflows"},
    {"element_overflow", tensor_file("{" + entry("a", "F64", "[4611686018427387904]", 0, 0) + "}"),
     "overflows"},
    {"three_offsets",
     tensor_file("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1,1]}}", "x"),
     "has 3 numbers"},
    {"backwards", tensor_file("{" + entry("a", "U8", "[1]", 1, 0) + "}", "x"), "after its end"},
    {"past_the_end", tensor_file("{" + entry("a", "U8", "[2]", 0, 2) + "}", "x"),
     "ends at byte 2 of the data, which has 1"},
    {"size_disagrees", tensor_file("{" + entry("a", "F32", "[1]", 0, 3) + "}", "xyz"),
     "has 3 bytes, its dtype and shape need 4"},
    {"overlap",
     tensor_file("{" + entry("a", "U8", "[2]", 0, 2) + "," + entry("b", "U8", "[2]", 1, 3) + "}",
                 "xyz"),
     "'b' overlaps"},
    {"same_bytes",
     tensor_file("{" + entry("a", "U8", "[1]", 0, 1) + "," + entry("b", "U8", "[1]", 0, 1) + "}",
                 "x"),
     "'b' overlaps"},
    {"hole",
     tensor_file("{" + entry("a", "U8", "[1]", 0, 1) + "," + entry("b", "U8", "[1]", 2, 3) + "}",
                 "xyz"),
     "bytes 1 to 2 of the data belong to no tensor"},
    {"trailing_data", tensor_file("{" + entry("a", "U8", "[1]", 0, 1) + "}", "xy"),
     "bytes 1 to 2 of the data belong to no tensor"},
    {"metadata_array", tensor_file("{\"__metadata__\":[]}"), "__metadata__ is not an object"},
    {"metadata_number", tensor_file("{\"__metadata__\":{\"k\":8}}"), "'k' is not a string"},
};

INSTANTIATE_TEST_SUITE_P(Files, TensorFileRefuses, ::testing::ValuesIn(kBadFiles),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(TensorFile, EveryPrefixOfAFileIsRefused) {
  const std::string bytes =
      tensor_file("{" + entry("a", "F32", "[2]", 0, 8) + "}", bytes_of(std::vector<float>{1, 2}));
  ASSERT_EQ(parse_refusal(bytes), "(accepted)");
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(parse_refusal(bytes.substr(0, size)), "(accepted)") << size;
  }
}

TEST(TensorFile, OpenNamesThePathAndTheReason) {
  const TemporaryDirectory directory;
  const auto open_refusal = [](const std::filesystem::path& path) {
    return refusal([&] { TensorFile::open(path); });
  };
  EXPECT_EQ(open_refusal(directory / "missing"),
            (directory / "missing").string() + ": cannot be opened: No such file or directory");
  EXPECT_NE(open_refusal(directory / ".").find("is not a regular file"), std::string::npos);
  EXPECT_NE(open_refusal(directory.write("empty", "")).find("has 0 bytes"), std::string::npos);
  const std::string bytes = tensor_file("{" + entry("a", "U8", "[2]", 0, 2) + "}", "x");
  EXPECT_NE(open_refusal(directory.write("cut", bytes)).find("ends at byte 2"), std::string::npos);
}

TEST(TensorFile, OpenAlignsDataBehindAHeaderOfAnyLength) {
  const TemporaryDirectory directory;
  for (std::size_t padding = 0; padding < 8; ++padding) {
    const auto path = directory.write(
        "file", tensor_file("{" + entry("a", "I64", "[1]", 0, 8) + "}" + std::string(padding, ' '),
                            bytes_of(std::vector<int64_t>{42})));
    const TensorFile file = TensorFile::open(path);
    const std::byte* data = file.find("a")->bytes.data();
    ASSERT_EQ(reinterpret_cast<uintptr_t>(data) % 8, 0u);
    EXPECT_EQ(*reinterpret_cast<const int64_t*>(data), 42);
  }
}

TEST(TensorFileWriter, WhatIsWrittenIsReadBackAndTheBytesAreTheSameEachTime) {
  const TemporaryDirectory directory;
  const std::vector<uint8_t> small{1, 2, 3};
  const std::vector<int64_t> large{-1, 1ll << 40};
  TensorFileWriter writer;
  writer.add("small", "U8", {3}, as_span(small));
  writer.add("none", "BF16", {0, 4}, {});
  writer.add("large", "I64", {2, 1}, as_span(large));
  writer.set_metadata("quote", "a \"b\" \n\xc3\xa9");
  writer.set_metadata("k", "1");
  writer.set_metadata("k", "2");
  writer.write(directory / "a");
  writer.write(directory / "b");
  writer.write(directory / "b");  // replaces
  EXPECT_EQ(directory.num_entries(), 2);
  const std::string bytes = read_whole(directory / "a");
  EXPECT_EQ(bytes, read_whole(directory / "b"));
  EXPECT_EQ(static_cast<unsigned char>(bytes[0]) % 8, 0);  // data starts aligned

  const TensorFile file = TensorFile::open(directory / "a");
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.find("none")->shape, (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(reinterpret_cast<const int64_t*>(file.find("large")->bytes.data())[1], 1ll << 40);
  EXPECT_EQ(file.find("small")->bytes[2], std::byte{3});
  EXPECT_EQ(file.metadata().at("quote"), "a \"b\" \n\xc3\xa9");
  EXPECT_EQ(file.metadata().at("k"), "2");
}

TEST(TensorFileWriter, RefusesWhatItCouldNotReadBack) {
  const std::vector<float> values{1.0f};
  TensorFileWriter writer;
  writer.add("a", "F32", {1}, as_span(values));
  EXPECT_THROW(writer.add("a", "F32", {1}, as_span(values)), InvalidArgument);
  EXPECT_THROW(writer.add("b", "F32", {2}, as_span(values)), InvalidArgument);
  EXPECT_THROW(writer.add("b", "F31", {1}, as_span(values)), InvalidArgument);
  EXPECT_THROW(writer.add("b", "F32", {-1}, as_span(values)), InvalidArgument);
  EXPECT_THROW(writer.add("b", "F32", {1ll << 62, 4}, as_span(values)), InvalidArgument);
  EXPECT_THROW(writer.add("__metadata__", "F32", {1}, as_span(values)), InvalidArgument);
  const TemporaryDirectory directory;
  writer.set_metadata("k", "\xff");
  EXPECT_THROW(writer.write(directory / "a"), InvalidArgument);
  EXPECT_EQ(directory.num_entries(), 0);
}

TEST(TensorFileWriter, LeavesNothingBehindWhereItCannotWrite) {
  const TemporaryDirectory directory;
  TensorFileWriter writer;
  EXPECT_THROW(writer.write(directory / "missing/file"), IoError);
  EXPECT_THROW(writer.write(directory / "."), IoError);
  ASSERT_EQ(::mkfifo((directory / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(writer.write(directory / "pipe"), IoError);
  EXPECT_EQ(directory.num_entries(), 1);
}

TEST(TensorFileWriter, FollowsALinkInsteadOfReplacingIt) {
  const TemporaryDirectory directory;
  const auto target = directory.write("target", "old");
  std::filesystem::create_symlink(target, directory / "link");
  TensorFileWriter().write(directory / "link");
  EXPECT_TRUE(std::filesystem::is_symlink(directory / "link"));
  EXPECT_NE(read_whole(target), "old");
}

TEST(Trace, FindsLayersInOrderOfTheirNumbers) {
  const std::vector<float> logits{1, 2, 3, 4, 5, 6};
  const std::vector<int32_t> ids{0, -1};
  const std::string bytes =
      tensor_file("{" + entry("layers.10.router_logits", "F32", "[2,3]", 0, 24) + "," +
                      entry("layers.2.expert_ids", "I32", "[2,1]", 24, 32) + "," +
                      entry("sequence_offsets", "I64", "[1]", 32, 40) + "}",
                  bytes_of(logits) + bytes_of(ids) + bytes_of(std::vector<int64_t>{2}));
  const Trace trace(TensorFile::parse(as_span(bytes), "mem"));
  ASSERT_EQ(trace.layers().size(), 2u);
  EXPECT_EQ(trace.layers()[0].index, 2);
  EXPECT_EQ(trace.layers()[0].router_logits.data, nullptr);
  EXPECT_EQ(trace.layers()[0].expert_ids.row(1)[0], -1);
  EXPECT_EQ(trace.layers()[1].index, 10);
  EXPECT_EQ(trace.layers()[1].router_logits.as<float>().row(1)[2], 6.0f);
  EXPECT_EQ(trace.num_tokens(), 2);
  EXPECT_EQ(trace.num_experts(), 3);
  EXPECT_EQ(trace.top_k(), 1);
  EXPECT_EQ(trace.metadata("model"), std::nullopt);
}

TEST(Trace, NoTokensAreLegal) {
  const std::string bytes =
      tensor_file("{\"__metadata__\":{\"top_k\":\"4\"}," +
                  entry("layers.0.router_logits", "F16", "[0,8]", 0, 0) + "}");
  const Trace trace(TensorFile::parse(as_span(bytes), "mem"));
  EXPECT_NE(trace.layers()[0].router_logits.data, nullptr);
  EXPECT_EQ(trace.num_tokens(), 0);
  EXPECT_EQ(trace.top_k(), 4);
}

TEST(Trace, ReadsTheExample) {
  const Trace trace = Trace::open(SWITCHYARD_SOURCE_DIR "/examples/traces/english.safetensors");
  EXPECT_EQ(trace.layers().size(), 4u);
  EXPECT_EQ(trace.num_tokens(), 2048);
  EXPECT_EQ(trace.num_experts(), 64);
  EXPECT_EQ(trace.top_k(), 8);
  EXPECT_EQ(trace.metadata("score_function"), "softmax");
}

class TraceRefuses : public ::testing::TestWithParam<BadFile> {};

TEST_P(TraceRefuses, NamingTheFileAndWhatIsWrong) {
  const std::string message = trace_refusal(GetParam().bytes);
  EXPECT_EQ(message.rfind("mem: ", 0), 0u) << message;
  EXPECT_NE(message.find(GetParam().message), message.npos) << message;
}

/// Two tensors of four bytes an element; `a` and `b` are their names, types and shapes.
std::string two_tensors(const std::string& name_a, const std::string& dtype_a,
                        const std::string& shape_a, uint64_t bytes_a, const std::string& name_b,
                        const std::string& dtype_b, const std::string& shape_b, uint64_t bytes_b) {
  return tensor_file("{\"__metadata__\":{\"num_experts\":\"4\"}," +
                         entry(name_a, dtype_a, shape_a, 0, bytes_a) + "," +
                         entry(name_b, dtype_b, shape_b, bytes_a, bytes_a + bytes_b) + "}",
                     std::string(bytes_a + bytes_b, '\0'));
}

std::string with_metadata(const std::string& metadata) {
  return tensor_file("{\"__metadata__\":{" + metadata + "}," +
                         entry("layers.0.expert_ids", "I32", "[1,2]", 0, 8) + "}",
                     std::string(8, '\0'));
}

const BadFile kBadTraces[] = {
    {"no_layers", tensor_file("{}"), "has no tensor layers.N"},
    {"only_other_tensors", tensor_file("{" + entry("weight", "U8", "[1]", 0, 1) + "}", "x"),
     "has no tensor layers.N"},
    {"bias_alone",
     tensor_file("{" + entry("layers.3.correction_bias", "F32", "[1]", 0, 4) + "}",
                 std::string(4, '\0')),
     "layer 3 has neither"},
    {"weights_without_ids",
     two_tensors("layers.0.router_logits", "F32", "[1,4]", 16, "layers.0.gate_weights", "F32",
                 "[1,2]", 8),
     "gate_weights without expert_ids"},
    {"layer_number_padded",
     tensor_file("{" + entry("layers.00.router_logits", "F32", "[0,1]", 0, 0) + "}"),
     "does not name a layer: '00'"},
    {"layer_number_negative",
     tensor_file("{" + entry("layers.-1.router_logits", "F32", "[0,1]", 0, 0) + "}"),
     "does not name a layer: '-1'"},
    {"layer_number_huge",
     tensor_file("{" + entry("layers.9999999999.router_logits", "F32", "[0,1]", 0, 0) + "}"),
     "does not name a layer"},
    {"layer_number_text",
     tensor_file("{" + entry("layers.x.router_logits", "F32", "[0,1]", 0, 0) + "}"),
     "does not name a layer: 'x'"},
    {"logits_integers",
     tensor_file("{" + entry("layers.0.router_logits", "I32", "[0,1]", 0, 0) + "}"),
     "is I32, must be F32, F16 or BF16"},
    {"logits_flat", tensor_file("{" + entry("layers.0.router_logits", "F32", "[0]", 0, 0) + "}"),
     "has 1 dimensions, must have 2"},
    {"no_experts", tensor_file("{" + entry("layers.0.router_logits", "F32", "[3,0]", 0, 0) + "}"),
     "has 0 experts"},
    {"ids_wide", tensor_file("{" + entry("layers.0.expert_ids", "I64", "[0,1]", 0, 0) + "}"),
     "is I64, must be I32"},
    {"experts_unknown", with_metadata(""), "metadata num_experts is missing"},
    {"experts_no_number", with_metadata("\"num_experts\":\"many\""), "num_experts is 'many'"},
    {"experts_trailing", with_metadata("\"num_experts\":\"4 \""), "num_experts is '4 '"},
    {"experts_zero", with_metadata("\"num_experts\":\"0\""), "num_experts is '0'"},
    {"top_k_disagrees", with_metadata("\"num_experts\":\"4\",\"top_k\":\"3\""),
     "has 2 slots a token, metadata top_k has 3"},
    {"tokens_disagree",
     two_tensors("layers.0.router_logits", "F32", "[1,4]", 16, "layers.0.expert_ids", "I32",
                 "[2,1]", 8),
     "'layers.0.expert_ids' has 2 tokens, layers.0.router_logits has 1"},
    {"layers_disagree",
     two_tensors("layers.0.router_logits", "F32", "[1,4]", 16, "layers.1.router_logits", "F32",
                 "[2,4]", 32),
     "'layers.1.router_logits' has 2 tokens, layers.0.router_logits has 1"},
    {"experts_disagree",
     two_tensors("layers.0.router_logits", "F32", "[1,4]", 16, "layers.0.correction_bias", "F32",
                 "[3]", 12),
     "'layers.0.correction_bias' has 3 experts, metadata num_experts has 4"},
    {"slots_disagree",
     two_tensors("layers.0.expert_ids", "I32", "[1,4]", 16, "layers.0.gate_weights", "F32", "[1,3]",
                 12),
     "'layers.0.gate_weights' has 3 slots a token, layers.0.expert_ids has 4"},
    {"id_too_large",
     tensor_file("{\"__metadata__\":{\"num_experts\":\"4\"}," +
                     entry("layers.0.expert_ids", "I32", "[1,2]", 0, 8) + "}",
                 bytes_of(std::vector<int32_t>{0, 4})),
     "expert id 4 of token 0, slot 1 must be in [-1, 4)"},
    {"id_too_small",
     tensor_file("{\"__metadata__\":{\"num_experts\":\"4\"}," +
                     entry("layers.0.expert_ids", "I32", "[1,2]", 0, 8) + "}",
                 bytes_of(std::vector<int32_t>{-2, 0})),
     "expert id -2"},
    {"count_negative",
     tensor_file("{" + entry("layers.0.router_logits", "F32", "[0,1]", 0, 0) + "," +
                     entry("layers.0.tokens_per_expert", "I64", "[1]", 0, 8) + "}",
                 bytes_of(std::vector<int64_t>{-5})),
     "expert 0 has -5 tokens"},
};

INSTANTIATE_TEST_SUITE_P(Traces, TraceRefuses, ::testing::ValuesIn(kBadTraces),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace switchyard

// The house rules: who may include whom, and what files are called and how long they get.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using Violations = std::vector<std::string>;

constexpr std::array kRooms = {"include", "cpu",   "cuda",  "nccl",    "stats",
                               "tools",   "tests", "bench", "examples"};
/// Files that may be longer, by path, each with the length it is allowed.
const std::map<std::string, int> kLongFiles = {};
constexpr int kMaxLines = 400;

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool is_source(const fs::path& path) {
  static const std::set<std::string> kExtensions = {".h", ".cpp", ".cu", ".cuh"};
  return kExtensions.contains(path.extension().string());
}

/// Paths of the rooms' files relative to `root`, sorted.
std::vector<fs::path> files_of(const fs::path& root) {
  std::vector<fs::path> files;
  for (const char* room : kRooms) {
    if (!fs::exists(root / room)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / room)) {
      if (entry.is_regular_file()) files.push_back(fs::relative(entry.path(), root));
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string first_part(const fs::path& path) { return path.begin()->string(); }

/// The room that an include written in `file` leads to; empty for what is outside the project.
std::string room_of_include(const fs::path& root, const fs::path& file, const std::string& name) {
  if (name.starts_with("switchyard/")) return "include";
  std::string first = first_part(name);
  const bool names_room = std::find(kRooms.begin(), kRooms.end(), first) != kRooms.end();
  if (names_room && name != first) return first;
  if (fs::exists(root / file.parent_path() / name)) {
    return first_part((file.parent_path() / name).lexically_normal());
  }
  return {};
}

/// Rooms, other than its own, that a file may include from.
std::set<std::string> allowed_rooms(const fs::path& file) {
  const std::string room = first_part(file);
  if (room == "include") return {};
  if (room == "tests" || room == "bench") return {kRooms.begin(), kRooms.end()};
  std::set<std::string> allowed = {"include"};
  const std::string path = file.generic_string();
  if (path.starts_with("cpu/backend_registry.")) allowed.insert("cuda");
  if (path == "cpu/build_info.cpp") allowed.insert({"cuda", "nccl"});
  return allowed;
}

bool is_standard_header(const std::string& name) {
  static const std::set<std::string> kCHeaders = {"stddef.h", "stdint.h", "stdbool.h"};
  return name.find_first_of("./") == std::string::npos || kCHeaders.contains(name);
}

Violations include_violations(const fs::path& root) {
  static const std::regex kInclude(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])");
  Violations found;
  for (const fs::path& file : files_of(root)) {
    if (!is_source(file)) continue;
    std::istringstream lines(read(root / file));
    for (std::string line; std::getline(lines, line);) {
      std::smatch match;
      if (!std::regex_search(line, match, kInclude)) continue;
      const std::string name = match[2];
      const std::string own = first_part(file);
      const std::string other = room_of_include(root, file, name);
      const bool foreign = !other.empty() && other != own && !allowed_rooms(file).contains(other);
      const bool outside = own == "include" && other.empty() && !is_standard_header(name);
      if (foreign || outside) found.push_back(file.generic_string() + " includes " + name);
    }
  }
  return found;
}

/// "routing" for routing.cu, routing_kernels.cuh and routing-inl.h.
std::string stem_of(const fs::path& file) {
  std::string stem = file.stem().string();
  for (const std::string suffix : {"_kernels", "-inl"}) {
    if (stem.ends_with(suffix)) stem.resize(stem.size() - suffix.size());
  }
  return stem;
}

Violations mirror_violations(const fs::path& root) {
  std::set<std::string> cpu_stems;
  for (const fs::path& file : files_of(root)) {
    if (first_part(file) == "cpu" && is_source(file)) cpu_stems.insert(stem_of(file));
  }
  // What stands in for CUDA's names needs none, nor does what asks the device.
  cpu_stems.insert({"intrinsics", "device_code"});
  Violations found;
  for (const fs::path& file : files_of(root)) {
    const bool kernel = file.extension() == ".cu" || file.extension() == ".cuh";
    if (first_part(file) != "cuda" || !kernel || cpu_stems.contains(stem_of(file))) continue;
    found.push_back(file.generic_string() + " has no counterpart in cpu/");
  }
  return found;
}

Violations length_violations(const fs::path& root) {
  static const std::set<std::string> kShortRooms = {"include", "cpu",   "cuda",
                                                    "nccl",    "stats", "tools"};
  Violations found;
  for (const fs::path& file : files_of(root)) {
    if (!is_source(file) || !kShortRooms.contains(first_part(file))) continue;
    const std::string text = read(root / file);
    const auto lines = std::count(text.begin(), text.end(), '\n');
    const auto exception = kLongFiles.find(file.generic_string());
    const int limit = exception == kLongFiles.end() ? kMaxLines : exception->second;
    if (lines > limit) {
      found.push_back(file.generic_string() + " has " + std::to_string(lines) + " lines, at most " +
                      std::to_string(limit));
    }
  }
  return found;
}

/// A name that says nothing of the subject hides that one is missing.
Violations name_violations(const fs::path& root) {
  Violations found;
  for (const fs::path& file : files_of(root)) {
    // What stands in for another project's file bears its name.
    if (file.parent_path().generic_string().find("_stand_in") != std::string::npos) continue;
    std::string name = file.filename().string();
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    for (const char* vague : {"util", "helper", "misc", "common"}) {
      if (name.find(vague) != std::string::npos) {
        found.push_back(file.generic_string() + " is named after no subject");
      }
    }
  }
  return found;
}

std::string joined(const Violations& violations) {
  std::string text;
  for (const std::string& violation : violations) text += violation + "\n";
  return text;
}

TEST(House, IncludesPointOneWay) {
  EXPECT_EQ(joined(include_violations(SWITCHYARD_SOURCE_DIR)), "");
}

TEST(House, EveryDeviceOperationHasAHostCounterpart) {
  EXPECT_EQ(joined(mirror_violations(SWITCHYARD_SOURCE_DIR)), "");
}

TEST(House, FilesStayShort) { EXPECT_EQ(joined(length_violations(SWITCHYARD_SOURCE_DIR)), ""); }

TEST(House, FilesAreNamedAfterTheirSubject) {
  EXPECT_EQ(joined(name_violations(SWITCHYARD_SOURCE_DIR)), "");
}

TEST(House, ReadmeShowsTheTestedExample) {
  const fs::path root = SWITCHYARD_SOURCE_DIR;
  const std::string readme = read(root / "README.md");
  for (const char* name : {"examples/route_a_batch.cpp", "tests/install/consumer/CMakeLists.txt"}) {
    const std::string example = read(root / name);
    ASSERT_FALSE(example.empty()) << name;
    EXPECT_NE(readme.find(example), std::string::npos) << name << " differs";
  }
}

/// A tree of files to try the rules on.
class HouseRules : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    root_ = fs::path(testing::TempDir()) / (std::string("switchyard_house_") + info->name());
    fs::remove_all(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  fs::path root_;
};

TEST_F(HouseRules, RefuseIncludesBetweenSiblings) {
  write("cpu/a.cpp", "#include \"cuda/b.h\"\n#include \"switchyard/c.h\"\n#include \"cpu/d.h\"\n");
  write("stats/e.cpp", "  #  include \"../nccl/f.h\"\n");
  write("nccl/f.h", "#include <hwy/highway.h>\n");
  write("tools/g.cpp", "#include \"cpu/h.h\"\n");
  write("nccl/i.cpp", "#include \"tests/j.h\"\n");
  EXPECT_EQ(joined(include_violations(root_)),
            "cpu/a.cpp includes cuda/b.h\nnccl/i.cpp includes tests/j.h\n"
            "stats/e.cpp includes ../nccl/f.h\ntools/g.cpp includes cpu/h.h\n");
}

TEST_F(HouseRules, LetTheRegistryAndTestsNameBackends) {
  write("cpu/backend_registry.cpp", "#include \"cuda/routing.h\"\n");
  write("cpu/build_info.cpp", "#include \"cuda/devices.h\"\n#include \"nccl/versions.h\"\n");
  write("tests/a_test.cpp", "#include \"cuda/routing.h\"\n#include \"bench/b.h\"\n");
  EXPECT_EQ(joined(include_violations(root_)), "");
}

TEST_F(HouseRules, KeepPublicHeadersToTheStandardLibrary) {
  write("include/switchyard/a.h", "#include <span>\n#include <stdint.h>\n#include <omp.h>\n");
  write("include/switchyard/b.h", "#include \"hwy/highway.h\"\n#include \"switchyard/a.h\"\n");
  EXPECT_EQ(joined(include_violations(root_)),
            "include/switchyard/a.h includes omp.h\n"
            "include/switchyard/b.h includes hwy/highway.h\n");
}

TEST_F(HouseRules, WantAMirrorOfEveryKernel) {
  write("cpu/routing.cpp", "");
  write("cuda/routing.cu", "");
  write("cuda/routing_kernels.cuh", "");
  write("cuda/devices.cpp", "");
  write("cuda/sorting_kernels.cuh", "");
  EXPECT_EQ(joined(mirror_violations(root_)),
            "cuda/sorting_kernels.cuh has no counterpart in cpu/\n");
}

TEST_F(HouseRules, CountLinesAndReadNames) {
  write("cpu/long.cpp", std::string(401, '\n'));
  write("cpu/fits.cpp", std::string(400, '\n'));
  write("tests/StringUtils.h", "");
  EXPECT_EQ(joined(length_violations(root_)), "cpu/long.cpp has 401 lines, at most 400\n");
  write("bench/peers/torch_stand_in/torch_utils.h", "");
  EXPECT_EQ(joined(name_violations(root_)), "tests/StringUtils.h is named after no subject\n");
}

}  // namespace
}  // namespace switchyard

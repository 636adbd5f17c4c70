// How ids travel between processes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "switchyard/errors.h"
#include "switchyard/nccl_communicator.h"
#include "tests/temporary_directory.h"

namespace switchyard::test {
namespace {

template <typename Work>
std::string refusal(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

class SimtNcclUniqueId : public ::testing::Test {
 protected:
  [[nodiscard]] std::string path() const { return (directory_ / "id").string(); }
  void write(const std::string& text) const { std::ofstream(path()) << text; }

 private:
  switchyard::testing::TemporaryDirectory directory_;
};

TEST_F(SimtNcclUniqueId, TravelsInAFileThatAppearsWhole) {
  const NcclUniqueId id = create_nccl_unique_id();
  EXPECT_NE(id, create_nccl_unique_id());
  NcclUniqueId read;
  std::thread reader([&] { read = read_nccl_unique_id(path(), 20'000); });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  write_nccl_unique_id(path(), id);
  reader.join();
  EXPECT_EQ(read, id);
  write_nccl_unique_id(path(), create_nccl_unique_id());
  EXPECT_NE(read_nccl_unique_id(path(), 1), id);
}

TEST_F(SimtNcclUniqueId, IsRefusedFromAFileThatHoldsSomethingElse) {
  EXPECT_EQ(refusal([&] { read_nccl_unique_id(path(), 30); }),
            path() + ": was not there within 30 ms");
  EXPECT_EQ(refusal([&] { read_nccl_unique_id(path(), 0); }), "timeout_ms is 0, must be 1 or more");
  write("12ab\n");
  EXPECT_EQ(refusal([&] { read_nccl_unique_id(path(), 1); }),
            path() + ": holds 4 characters, must hold 256 hexadecimal digits");
  write(std::string(200, 'a') + "x" + std::string(55, '0'));
  EXPECT_EQ(refusal([&] { read_nccl_unique_id(path(), 1); }),
            path() + ": holds no hexadecimal digit at character 200");
  const std::string nowhere = path() + "/none";
  const std::string unwritable = refusal([&] { write_nccl_unique_id(nowhere, {}); });
  EXPECT_EQ(unwritable.find(nowhere + ": cannot be written: "), 0u) << unwritable;
}

TEST_F(SimtNcclUniqueId, TravelsInTheEnvironment) {
  constexpr const char* kName = "SWITCHYARD_TEST_NCCL_ID";
  unsetenv(kName);
  EXPECT_EQ(refusal([&] { nccl_unique_id_from_environment(kName); }),
            "the environment variable SWITCHYARD_TEST_NCCL_ID is not set");
  setenv(kName, "", 1);
  EXPECT_EQ(refusal([&] { nccl_unique_id_from_environment(kName); }),
            "the environment variable SWITCHYARD_TEST_NCCL_ID holds 0 characters, must hold 256 "
            "hexadecimal digits");
  const NcclUniqueId id = create_nccl_unique_id();
  std::string digits = to_hexadecimal(id);
  setenv(kName, digits.c_str(), 1);
  EXPECT_EQ(nccl_unique_id_from_environment(kName), id);
  for (char& digit : digits) digit = static_cast<char>(std::toupper(digit));
  setenv(kName, digits.c_str(), 1);
  EXPECT_EQ(nccl_unique_id_from_environment(kName), id);
  unsetenv(kName);
}

}  // namespace
}  // namespace switchyard::test

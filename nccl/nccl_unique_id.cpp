// Bringing the id of an NCCL group from the rank that made it to the others.
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

#include "nccl/nccl_handle.h"
#include "nccl/refuse.h"
#include "switchyard/nccl_communicator.h"

namespace switchyard {

using nccl::refuse;
using nccl::text_of;

namespace {

constexpr char kDigits[] = "0123456789abcdef";
constexpr std::size_t kNumDigits = 2 * sizeof(NcclUniqueId);

int value_of(char digit) {
  const auto lower = static_cast<char>(digit >= 'A' && digit <= 'F' ? digit - 'A' + 'a' : digit);
  const char* const found = lower == '\0' ? nullptr : std::strchr(kDigits, lower);
  return found == nullptr ? -1 : static_cast<int>(found - kDigits);
}

/// @return what is wrong with the digits, "" for nothing.
std::string parse(const std::string& digits, NcclUniqueId& id) {
  if (digits.size() != kNumDigits) {
    return text_of("holds ", digits.size(), " characters, must hold ", kNumDigits,
                   " hexadecimal digits");
  }
  for (std::size_t i = 0; i < kNumDigits; i += 2) {
    const int high = value_of(digits[i]);
    const int low = value_of(digits[i + 1]);
    if (high < 0 || low < 0) {
      return text_of("holds no hexadecimal digit at character ", high < 0 ? i : i + 1);
    }
    id.bytes[i / 2] = static_cast<std::byte>(high * 16 + low);
  }
  return "";
}

}  // namespace

NcclUniqueId create_nccl_unique_id() {
  nccl::check_nccl_version();
  ncclUniqueId made;
  const ncclResult_t result = ncclGetUniqueId(&made);
  if (result != ncclSuccess) {
    throw Unavailable("ncclGetUniqueId: " + nccl::text_of_nccl(result, nullptr));
  }
  NcclUniqueId id;
  static_assert(sizeof(made) == sizeof(id));
  std::memcpy(id.bytes.data(), &made, sizeof(id));
  return id;
}

std::string to_hexadecimal(const NcclUniqueId& id) {
  std::string digits;
  for (const std::byte byte : id.bytes) {
    digits += kDigits[std::to_integer<unsigned>(byte) / 16];
    digits += kDigits[std::to_integer<unsigned>(byte) % 16];
  }
  return digits;
}

void write_nccl_unique_id(const std::string& path, const NcclUniqueId& id) {
  const std::string temporary = text_of(path, ".", getpid());
  std::ofstream file(temporary);
  file << to_hexadecimal(id) << '\n';
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const std::string why = std::strerror(errno);
    std::remove(temporary.c_str());
    throw IoError(text_of(path, ": cannot be written: ", why));
  }
}

NcclUniqueId read_nccl_unique_id(const std::string& path, int64_t timeout_ms) {
  if (timeout_ms < 1) refuse("timeout_ms is ", timeout_ms, ", must be 1 or more");
  const auto deadline = nccl::Clock::now() + std::chrono::milliseconds(timeout_ms);
  std::ifstream file(path);
  while (!file) {
    if (nccl::Clock::now() > deadline) {
      throw IoError(text_of(path, ": was not there within ", timeout_ms, " ms"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    file.clear();
    file.open(path);
  }
  std::string digits{std::istreambuf_iterator<char>(file), {}};
  while (!digits.empty() && (digits.back() == '\n' || digits.back() == '\r')) digits.pop_back();
  NcclUniqueId id;
  const std::string trouble = parse(digits, id);
  if (!trouble.empty()) throw IoError(text_of(path, ": ", trouble));
  return id;
}

NcclUniqueId nccl_unique_id_from_environment(const char* variable) {
  const char* const digits = std::getenv(variable);
  if (digits == nullptr) refuse("the environment variable ", variable, " is not set");
  NcclUniqueId id;
  const std::string trouble = parse(digits, id);
  if (!trouble.empty()) refuse("the environment variable ", variable, " ", trouble);
  return id;
}

}  // namespace switchyard

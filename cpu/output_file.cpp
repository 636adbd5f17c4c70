#include "switchyard/output_file.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "switchyard/errors.h"

namespace switchyard {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void refuse_output(const fs::path& path, const std::string& why) {
  throw IoError("cannot write " + path.string() + ": " + why);
}

}  // namespace

OutputFile::OutputFile(const fs::path& path) : path_(path), target_(path) {
  std::error_code error;
  if (fs::is_symlink(fs::symlink_status(target_, error))) {
    target_ = fs::canonical(target_, error);
    if (error) refuse_output(path_, "it is a link to nowhere");
  }
  const fs::file_status status = fs::status(target_, error);
  // Renaming onto a device or a pipe would replace it.
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    refuse_output(path_,
                  fs::is_directory(status) ? "it is a directory" : "it is not a regular file");
  }
  if (target_.filename().empty()) refuse_output(path_, "it names no file");

  static std::atomic<unsigned> next{0};
  for (;;) {
    std::ostringstream name;
    name << '.' << target_.filename().string() << '.' << ::getpid() << '-' << next++ << ".tmp";
    fs::path candidate = target_;
    candidate.replace_filename(name.str());
    file_.reset(std::fopen(candidate.c_str(), "wbx"));
    if (file_ != nullptr) {
      temporary_ = std::move(candidate);
      return;
    }
    if (errno != EEXIST) refuse_output(path_, std::strerror(errno));
  }
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      target_(std::move(other.target_)),
      temporary_(std::exchange(other.temporary_, {})),
      file_(std::move(other.file_)) {}

OutputFile::~OutputFile() {
  file_.reset();
  if (temporary_.empty()) return;
  std::error_code ignored;
  fs::remove(temporary_, ignored);
}

void OutputFile::fail(const char* what) const {
  refuse_output(path_, std::string(what) + ": " + std::strerror(errno));
}

void OutputFile::write(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size()) fail("write failed");
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text.data(), text.size())));
}

void OutputFile::commit() {
  // Closing is where a full disk may first be noticed.
  if (std::fclose(file_.release()) != 0) fail("close failed");
  std::error_code error;
  fs::rename(temporary_, target_, error);
  if (error) refuse_output(path_, error.message());
  temporary_.clear();
}

}  // namespace switchyard

// A file that appears whole or not at all.
#pragma once

#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

namespace switchyard {

/// Writes to a temporary file beside `path`, which commit() renames to `path`. Without commit() the
/// destructor removes it, and `path` is as it was. A symbolic link is followed, not replaced.
class OutputFile {
 public:
  /// @throws IoError  when the temporary file cannot be made, or `path` is there and is no file.
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(OutputFile&&) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;

  /// @throws IoError  when the bytes cannot be written.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);

  /// @throws IoError  when the file cannot be finished; nothing is left behind then.
  void commit();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  [[noreturn]] void fail(const char* what) const;

  std::filesystem::path path_;       ///< as the caller wrote it, for messages
  std::filesystem::path target_;     ///< where it goes
  std::filesystem::path temporary_;  ///< empty once there is none to remove
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace switchyard

// Runs a program and keeps what it said.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/temporary_directory.h"

namespace switchyard::testing {

struct CommandResult {
  int exit_code = -1;  ///< -1: ended by a signal
  std::string out;
  std::string err;
};

/// The program's path comes first; `out_path` replaces the file that catches standard output.
inline CommandResult run_program(std::vector<std::string> arguments,
                                 const std::string& out_path = "") {
  const TemporaryDirectory directory;
  const std::string out = out_path.empty() ? (directory / "out").string() : out_path;
  const std::string err = (directory / "err").string();
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);

  constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), kFlags, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), kFlags, 0600);
  pid_t process = 0;
  const int failure =
      ::posix_spawn(&process, pointers[0], &actions, nullptr, pointers.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (failure != 0) throw std::runtime_error("cannot start " + arguments[0]);
  int status = 0;
  ::waitpid(process, &status, 0);
  CommandResult result;
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (out_path.empty()) result.out = read_whole(out);
  result.err = read_whole(err);
  return result;
}

#ifdef SWITCHYARD_COMMAND
/// The switchyard program.
inline CommandResult run_command(std::vector<std::string> arguments,
                                 const std::string& out_path = "") {
  arguments.insert(arguments.begin(), SWITCHYARD_COMMAND);
  return run_program(std::move(arguments), out_path);
}
#endif

}  // namespace switchyard::testing

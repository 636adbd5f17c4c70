// The switchyard command: picks the subcommand and turns every error into one line and an exit
// code.
#include <iostream>
#include <map>
#include <string>

#include "switchyard/build_info.h"
#include "switchyard/errors.h"
#include "switchyard/logging.h"
#include "tools/commands.h"
#include "tools/mpi_job.h"

namespace switchyard::tools {
namespace {

constexpr int kUsageOrInput = 2;
constexpr int kOtherFailure = 1;

/// Names from a file may hold anything; the message stays one line.
int fail(int exit_code, std::string_view what) {
  if (!MpiJob::is_speaker()) return exit_code;
  std::string line = "switchyard: ";
  for (const char c : what) line += static_cast<unsigned char>(c) < ' ' || c == '\x7f' ? ' ' : c;
  std::cerr << line << std::endl;
  return exit_code;
}

void add_log_level(CLI::App& program) {
  static const std::map<std::string, LogLevel> kLevels = {
      {"trace", LogLevel::kTrace},     {"debug", LogLevel::kDebug}, {"info", LogLevel::kInfo},
      {"warning", LogLevel::kWarning}, {"error", LogLevel::kError}, {"off", LogLevel::kOff}};
  program
      .add_option_function<std::string>(
          "--log-level",
          [](const std::string& name) {
            const auto found = kLevels.find(name);
            if (found == kLevels.end()) {
              throw InvalidArgument("--log-level is '" + name +
                                    "', must be trace, debug, info, warning, error or off");
            }
            set_log_level(found->second);
          },
          "What to log to stderr: trace, debug, info, warning (default), error or off")
      ->type_name("LEVEL")
      ->trigger_on_parse();  // before the subcommand runs
}

int run(int argc, char** argv) {
  CLI::App program{"Mixture-of-Experts routing: routes, replays and reports on traces."};
  program.name("switchyard");
  program.set_version_flag("--version", "switchyard " + build_info().version);
  program.require_subcommand(0, 1);  // none is told below, an unknown one as unexpected
  program.fallthrough();             // so that --log-level may follow the subcommand
  program.footer("Exit code 2: wrong usage or input. Exit code 1: any other failure.");
  add_log_level(program);
  add_run_command(program);
  add_route_command(program);
  add_plan_command(program);
  add_place_command(program);
  add_simulate_command(program);
  add_offload_command(program);
  add_info_command(program);
  try {
    program.parse(argc, argv);
    if (program.get_subcommands().empty()) {
      return fail(kUsageOrInput, "a subcommand is needed; see switchyard --help");
    }
    if (!std::cout.flush()) return fail(kOtherFailure, "cannot write to standard output");
    return 0;
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return program.exit(error);  // --help, --version
    return fail(kUsageOrInput, error.what());
  } catch (const InvalidArgument& error) {
    return fail(kUsageOrInput, error.what());
  } catch (const IoError& error) {
    return fail(kUsageOrInput, error.what());
  } catch (const Unavailable& error) {
    return fail(kUsageOrInput, error.what());
  } catch (const std::bad_alloc&) {
    return fail(kOtherFailure, "out of memory");
  } catch (const std::exception& error) {
    return fail(kOtherFailure, error.what());
  }
}

}  // namespace
}  // namespace switchyard::tools

int main(int argc, char** argv) {
  const int exit_code = switchyard::tools::run(argc, argv);
  switchyard::tools::MpiJob::leave();
  return exit_code;
}

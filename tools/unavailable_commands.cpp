#include <string>

#include "switchyard/errors.h"
#include "tools/commands.h"

namespace switchyard::tools {

void add_unavailable_commands(CLI::App& program) {
  static constexpr const char* kCommands[][2] = {
      {"offload", "Replay with limited fast memory (not available yet)"},
  };
  for (const auto& [name, description] : kCommands) {
    CLI::App* command = program.add_subcommand(name, description);
    command->fallthrough(false);  // whatever follows, the answer is the same
    command->allow_extras();
    command->callback([text = std::string(name)] {
      throw Unavailable("'" + text + "' is not available yet in this version");
    });
  }
}

}  // namespace switchyard::tools

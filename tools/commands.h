// The subcommands. Each adds itself to the program; its callback does the work and throws an Error.
#pragma once

#include <CLI/CLI.hpp>

namespace switchyard::tools {

void add_run_command(CLI::App& program);
void add_route_command(CLI::App& program);
void add_plan_command(CLI::App& program);
void add_place_command(CLI::App& program);
void add_simulate_command(CLI::App& program);
void add_offload_command(CLI::App& program);
void add_info_command(CLI::App& program);

}  // namespace switchyard::tools

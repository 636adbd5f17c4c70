// What the programs for ranks do around their work: the command line, errors, exit codes.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

#include "bench/perf_ranks.h"

namespace switchyard::bench {

/// Parses and calls `work`, which returns whether all checks held. Says what went wrong in one line
/// under the program's name, once where all processes of a job say the same.
/// @return the exit code: 0, 1 for a failure, 2 for what the user must change.
int run_perf_program(CLI::App& app, int argc, char** argv, const PerfProcess& process,
                     const std::function<bool()>& work);

}  // namespace switchyard::bench
